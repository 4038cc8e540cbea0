"""The workers that are measured: one no-op job, for every kind of worker.

`workers` names them, each started as its own documentation says; `work` fills a queue, lets one of
them empty it, and reads the ledger. Other questions measure with both. Nothing is imported here,
and little by `apps` and `bare`: a worker's memory is to be its own.
"""
