"""Judges: language models that decide whether an answer is right. Used by evaluation and by the reward `judge`."""
