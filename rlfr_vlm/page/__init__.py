"""Pages that are one file: opened from disk, without a network; used by `rlfr report` and `rlfr-eval report`."""
