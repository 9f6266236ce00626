"""The commands of `rlfr`, one per file. Modules here import nothing heavy at the top."""
