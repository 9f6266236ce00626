"""The judge model for answers that rules leave undecided: prompts, reply parsing, cache, budget, known cases."""
