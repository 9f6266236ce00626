"""A run folder: files, restoring, evaluation."""
