"""Quick start: the embedded digits task end to end, from a small policy to a report."""
