"""Batches: many waiting messages of one job become one call of its task."""
