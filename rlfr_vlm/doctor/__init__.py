"""What usually goes wrong before training starts, one topic per file."""
