"""Draw responses with one of three engines, grade them, and write them as rows (`rlfr sample`)."""
