"""The paper's numbers, its tables and its figures, from records of runs."""
