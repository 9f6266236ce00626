"""Completion of a program's command line in bash, zsh and fish, from its argument parsers."""
