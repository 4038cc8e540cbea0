"""Calls under way: their futures, where their replies come in, and ways to make many of them."""
