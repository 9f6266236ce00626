"""Verdicts, metrics, scores, comparisons."""
