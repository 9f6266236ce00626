"""Derive a first configuration of `rlfr train` from a model's config.json, measured rows and the memory of a GPU."""
