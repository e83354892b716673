"""Masks, and functions that prune a model with a mask."""
