"""Celery's prefork pool with one inbox for all processes; see `pool.py`."""
