"""One training loop, and what it is given to train."""
