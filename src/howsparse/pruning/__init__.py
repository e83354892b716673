"""Which weights stay: masks, and pruning a model by one."""
