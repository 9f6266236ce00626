"""Pages of training runs and of flow fields: `rlfr report` and `rlfr inspect`."""
