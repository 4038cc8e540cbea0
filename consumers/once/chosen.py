"""The store that a topology names."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.topology import Topology
from consumers.errors import StoreError
from consumers.once.sqlite import SqliteStore
from consumers.once.store import Key, Record, Store

_SQLITE = "sqlite:"


class ChosenStore:
    """The store that a topology names, made anew in each process that uses it.

    Args:
        topology: its `once:` says where finished jobs are recorded.
    """

    def __init__(self, topology: Topology) -> None:
        self._named = None if topology.once is None else topology.once.store
        source = topology.source
        file = source.value(("once", "store")).file if source else ""
        self._folder = Path(file).absolute().parent
        self._store: Store | None = None
        self._process: int | None = None
        self._lock = threading.Lock()

    def find(self, key: Key) -> Record | None:
        """Return the record of a job, or None where there is none or its time is over.

        Raises:
            StoreError: nobody can tell.
        """
        try:
            return self._own().find(key)
        except StoreError:
            raise
        # A store of the user's raises what it likes.
        except Exception as exc:
            raise StoreError(
                f"the store {self._named!r} of finished jobs failed: {type(exc).__name__}: {exc}"
            ) from exc

    def keep(self, key: Key, record: Record, *, ttl_s: float) -> None:
        """Keep a record for so many seconds; raises what the store raises."""
        self._own().keep(key, record, ttl_s=ttl_s)

    def check(self) -> None:
        """See that the store can be used, without keeping anything open.

        Raises:
            StoreError: it cannot; says why.
        """
        make = self._maker()
        if self._is_file:
            # A function of the user's may connect to something, which must not be before a fork.
            make().check()

    def _own(self) -> Store:
        process = os.getpid()
        if self._process != process:
            with self._lock:
                if self._process != process:
                    self._store = self._maker()()
                    self._process = process
        assert self._store is not None
        return self._store

    @property
    def _is_file(self) -> bool:
        return self._named is not None and self._named.startswith(_SQLITE)

    def _maker(self) -> Callable[[], Any]:
        named = self._named
        if named is None:
            raise StoreError(
                "the topology names no store of finished jobs; add"
                ' `once: {store: "sqlite:once.sqlite3"}` to it'
            )
        if self._is_file:
            return lambda: SqliteStore(self._folder / named.removeprefix(_SQLITE))
        module, _, attribute = named.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        # Importing runs the user's code, which may raise anything.
        except Exception as exc:
            raise StoreError(
                f"the store {named!r} of finished jobs cannot be imported:"
                f" {type(exc).__name__}: {exc}"
            ) from exc
        if not callable(found):
            raise StoreError(f"{named!r} is no function that returns a store of finished jobs")
        maker: Callable[[], Any] = found
        return maker
