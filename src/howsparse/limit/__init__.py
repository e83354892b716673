"""How sparse a network can be pruned: the computed limit, the predicted loss and the measured loss."""
