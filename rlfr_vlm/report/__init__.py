"""Report pages of training runs (`rlfr report`) and of flow fields (`rlfr inspect`)."""
