"""Answers that other tools asked for: read their files, match them to our problems, write a run folder."""
