"""Celery workers that run jobs; knows nothing of the code that publishes them."""
