"""Training signals beside the outcome reward, one method per file."""
