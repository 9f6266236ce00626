"""Rows, prompts and their encoding."""
