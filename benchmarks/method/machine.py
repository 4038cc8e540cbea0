"""The machine and the libraries: without them a figure says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIBRARIES = ("rabbitry", "celery", "kombu", "amqp", "billiard", "numpy")
INSTALL = "`make bench` installs it"


def machine() -> dict[str, Any]:
    """Return what of this machine moves a figure."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int((_field(Path("/proc/meminfo"), "MemTotal") or "0").split()[0]) // 1024,
        "architecture": platform.machine(),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions(libraries: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of our own libraries and of others, those installed."""
    found = {}
    for name in (*LIBRARIES, *libraries):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def lacking(module: str) -> str | None:
    """Say why a peer cannot be measured here; None where its module can be imported."""
    return None if find_spec(module.partition(".")[0]) else f"not installed; {INSTALL}"


def load() -> float:
    """Return how many processes wanted a core in the last minute."""
    return os.getloadavg()[0]


def _field(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(found, None)
