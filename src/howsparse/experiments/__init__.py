"""Runs of methods, comparisons, studies and sweeps, and their records."""
