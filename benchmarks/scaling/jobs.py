"""What the daemons run: a job that does nothing, one that waits, and one in batches.

Ours and Celery's are the same functions. Nothing is imported but what the one that is asked for
needs.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.consumers import plain_celery
from benchmarks.consumers.account import Account
from benchmarks.consumers.place import PREFETCH, SLOTS
from benchmarks.scaling.gate import Gate
from benchmarks.scaling.place import BATCH, BATCHED, NOOP, PAUSE, PAUSE_S

_ACCOUNT = Account()
_GATES = {each: Gate(each) for each in (NOOP, PAUSE, BATCHED)}


def _run_noop(value: str) -> None:
    _GATES[NOOP].enter()
    _ACCOUNT.add(value)


def _run_pause(value: str) -> None:
    _GATES[PAUSE].enter()
    time.sleep(PAUSE_S)
    _ACCOUNT.add(value)


def _noop() -> Any:
    from consumers.job import job

    @job(NOOP)
    def noop(value: str) -> None:
        _run_noop(value)

    return noop


def _pause() -> Any:
    from consumers.job import job

    @job(PAUSE)
    def pause(value: str) -> None:
        _run_pause(value)

    return pause


def _batched() -> Any:
    from consumers.job import job

    @job(BATCHED, batch=BATCH, wait="20ms")
    def batched(value: list[str]) -> None:
        _GATES[BATCHED].enter()
        _ACCOUNT.add_all(value)

    return batched


def _celery() -> Any:
    app = plain_celery.celery_app(ahead=int(os.environ[PREFETCH]) // SLOTS)
    app.task(_run_noop, name=NOOP)
    app.task(_run_pause, name=PAUSE)
    return app


_MAKERS = {"noop": _noop, "pause": _pause, "batched": _batched, "celery_app": _celery}


def __getattr__(name: str) -> Any:
    """Make what a daemon asks for, and nothing of the others."""
    if name not in _MAKERS:
        raise AttributeError(name)
    made = globals()[name] = _MAKERS[name]()
    return made
