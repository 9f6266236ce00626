"""Checks of `rlfr doctor`: the machine, its packages, the network, and the ranks of a distributed start."""
