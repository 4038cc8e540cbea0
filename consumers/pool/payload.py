"""A job on its way to a process of the pool: what of it travels, and what begins it there."""

from __future__ import annotations

import pickle
from pickle import PickleBuffer
from typing import Any

from celery.app import trace
from celery.app.task import Context

from broker.body import ARRAYS_JSON, ARRAYS_MSGPACK
from consumers.pool.inbox import SMALL_BYTES

# What Celery has a job's process call, with its request, body and content type.
_TRACERS = (trace.fast_trace_task, trace.trace_task_ret)
_ARRAYS = (ARRAYS_JSON, ARRAYS_MSGPACK)
# The names in a request that are no headers of the user's, for Celery's `Context`; it makes this
# set anew for each job, and takes its names out of a copy of the request one by one.
_OF_CELERY = frozenset((*Context.__dict__, "lang", "task", "argsrepr", "kwargsrepr", "compression"))


def payload_of(message: Any) -> tuple[bytes, bytes]:
    """Return a job as its process reads it: pickled, and beside that the arrays' body."""
    kind, (number, index, function, args, kwargs) = message
    large = b""
    if function in _TRACERS:
        name, id, request, body, content_type, encoding = args
        # The process has the arguments of the body.
        request = request.copy()
        request.pop("args", None)
        request.pop("kwargs", None)
        if content_type in _ARRAYS and type(body) is bytes and len(body) > SMALL_BYTES:
            large, body = body, PickleBuffer(body)
        args = (name, id, request, body, content_type, encoding)
        if function is trace.fast_trace_task:
            function = trace_job
    message = (kind, (number, index, function, args, kwargs))
    protocol = pickle.HIGHEST_PROTOCOL
    if not large:
        return pickle.dumps(message, protocol=protocol), b""
    # What is told True stays within.
    return pickle.dumps(
        message, protocol=protocol, buffer_callback=lambda each: each.raw().obj is not large
    ), large


def trace_job(name: str, id: str, request: dict[str, Any], *body: Any) -> Any:
    """Run a job by Celery's tracer, with its headers told apart beforehand.

    Args:
        name: of the task.
        id: of the job.
        request: Celery's.
        body: with its content type and encoding; one without is decoded.
    """
    if request.get("headers") is None:
        request["headers"] = {k: v for k, v in request.items() if k not in _OF_CELERY} or None
    return trace.fast_trace_task(name, id, request, *body)
