"""Pretrained policies for machines that reach a package index but no model hub."""
