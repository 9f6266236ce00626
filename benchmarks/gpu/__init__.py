"""Check of a GPU in minutes (scripts/gpu_check.sh): tests and benchmarks one after the other, within a time limit."""
