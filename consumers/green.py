"""Workers with ``pool: gevent``: everything that blocks must be gevent's before it is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any, NoReturn

from broker.errors import WorkerError

# Patches the standard library, then runs the same command.
MODULE = "rabbitry.green"


def is_patched() -> bool:
    """Say whether this process's threads and sockets are gevent's."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def begin_again(worker: str) -> NoReturn:
    """Run this process's command once more, patched; the process stays the same.

    Args:
        worker: its name, for messages.

    Raises:
        WorkerError: gevent is not installed.
    """
    if importlib.util.find_spec("gevent") is None:
        raise WorkerError(
            f"worker {worker!r} uses the pool gevent, which is not installed;"
            " `pip install 'rabbitry[gevent]'`"
        )
    os.execv(sys.executable, [sys.executable, "-m", MODULE, *sys.argv[1:]])
