"""Finished jobs on record, so that a job that is delivered again does not run again."""

from consumers.once.store import Key, Record, Store

__all__ = ["Key", "Record", "Store"]
