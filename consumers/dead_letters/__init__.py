"""Dead letters: what failed and why, sending it again, and deleting it."""
