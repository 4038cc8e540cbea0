"""Which results are kept, and where: what the topology says of it, for one application."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kombu.exceptions import EncodeError

from broker.body import CONTENT_TYPES
from broker.errors import InvalidInput, RabbitryError, WorkerError
from broker.stored import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    ResultsUnavailable,
    check_installed,
    connect,
    translated,
)
from broker.topology import Topology
from broker.topology.results import Serializer

logger = logging.getLogger("rabbitry.results")

PICKLE = "application/x-python-serialize"
# While a result is not written its slot, or a worker's loop, does nothing else; the job goes back
# to RabbitMQ after that, which has more patience.
_RETRY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}


class NotStored(RabbitryError, EncodeError):  # type: ignore[misc]
    """A job is done and its result could not be kept: RabbitMQ has the job again.

    To Celery an EncodeError, which it takes for a failure of the job; any other would be one of
    its own, which it answers differently in each pool.
    """


@dataclass(frozen=True, slots=True)
class Kept:
    """Which results are kept, and where.

    Attributes:
        jobs: names of those whose results are kept.
        url: of the Redis that keeps them, password included.
        expires_s: how long.
        serializer: how they are written.
        accept: what is read beside json and msgpack.
    """

    jobs: frozenset[str]
    url: str = field(repr=False)
    expires_s: int
    serializer: Serializer
    accept: tuple[Serializer, ...]

    @classmethod
    def of(cls, topology: Topology) -> Kept | None:
        """Return what a topology says of it, or None where it keeps no results.

        Raises:
            WorkerError: a job wants its result kept, and the topology does not say where; or the
                client of Redis is not installed.
            TopologyError: the address of Redis cannot be made of the environment.
        """
        jobs = frozenset(name for name, job in topology.jobs.items() if job.store)
        results, url = topology.results, topology.results_url()
        if results is None or url is None:
            if jobs:
                raise WorkerError(
                    f"job {min(jobs)!r} says `store: true`, and the topology does not say where"
                    " results are kept; add `results: {backend: redis://HOST:6379/0}` to it"
                )
            return None
        try:
            check_installed()
        except InvalidInput as exc:
            raise WorkerError(str(exc)) from exc
        expires_s = round(results.expires.total_seconds())
        return cls(jobs, url, expires_s, results.serializer, tuple(topology.accept))

    def keeps(self, job: str | None) -> bool:
        """Say whether the result of a job is kept."""
        return job in self.jobs

    def settings(self) -> dict[str, Any]:
        """Return Celery's settings of its Redis backend."""
        return {
            "result_expires": self.expires_s,
            "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
            "redis_socket_timeout": ANSWER_TIMEOUT_S,
            "result_backend_transport_options": {"retry_policy": _RETRY},
        }

    def unwanted(self, topology: Topology) -> dict[str, dict[str, Any]]:
        """Return annotations for the jobs whose results nobody gets: Celery's `get` says so."""
        return {name: {"ignore_result": True} for name in topology.jobs if name not in self.jobs}


def serializers_of(topology: Topology, always: tuple[str, ...]) -> list[str]:
    """Return the names of all serializers that are read."""
    return list(dict.fromkeys((*always, *topology.accept)))


def content_types_of(topology: Topology) -> tuple[str, ...]:
    """Return the content types that become jobs."""
    return (*CONTENT_TYPES, PICKLE) if "pickle" in topology.accept else CONTENT_TYPES


def check_kept(app: Any, topology: Topology, environ: Mapping[str, str] = os.environ) -> None:
    """Check that a worker can keep results, and may read what it is to.

    A Redis that does not answer is no reason not to start: jobs whose results cannot be kept go
    back to RabbitMQ.

    Raises:
        WorkerError: Redis refuses the worker, a job's task is a batch, or pickle is to be read by
            a process of root's.
    """
    if "pickle" in topology.accept and os.geteuid() == 0 and not environ.get("C_FORCE_ROOT"):
        raise WorkerError(
            "the topology says accept: [pickle], with which a message can run any code, and this"
            " worker is root's: run it as another user (or set C_FORCE_ROOT=true)"
        )
    kept: Kept | None = app.kept
    if kept is None:
        return
    for name in sorted(kept.jobs):
        if getattr(app.tasks.get(name), "columns", None) is not None:
            raise WorkerError(
                f"job {name!r} is a batch, of whose messages no results are kept: leave out"
                " `store: true`, or `batch=`"
            )
    from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError

    try:
        client = connect(kept.url)
        try:
            with translated(kept.url):
                client.ping()
        finally:
            client.close()
    except InvalidInput as exc:
        raise WorkerError(str(exc)) from exc
    except ResultsUnavailable as exc:
        if isinstance(exc.__cause__, (AuthenticationError, AuthorizationError, ResponseError)):
            raise WorkerError(str(exc)) from exc
        logger.warning("%s; jobs that say `store: true` go back to RabbitMQ until then", exc)
