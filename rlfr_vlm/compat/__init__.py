"""Work-arounds for upstream trouble, each with the version that makes it removable."""
