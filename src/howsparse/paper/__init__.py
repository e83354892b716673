"""The paper's tables and figures, made from records of runs, and the numbers that the paper prints."""
