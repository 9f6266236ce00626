"""A judge model for what rules leave undecided: right, wrong, or still undecided, never a guess."""
