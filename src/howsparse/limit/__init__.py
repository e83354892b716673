"""How sparse a network can be pruned: what is computed, and what is measured."""
