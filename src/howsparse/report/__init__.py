"""Tables and pictures of the answers for a network."""
