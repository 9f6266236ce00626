"""Workarounds for upstream bugs, each with the version that makes it removable."""
