"""Measure any model or endpoint on benchmarks: what was right, what was wrong, and what nobody could decide."""
