"""Studies of methods and seeds: one training run for each method, setting and seed, and their comparison."""
