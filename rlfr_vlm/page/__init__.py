"""Self-contained report pages that open from disk without a network; used by `rlfr report` and `rlfr-eval report`."""
