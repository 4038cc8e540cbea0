"""A topology as the rules look at it: its objects, policies and routes, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from broker.topology.compile import compile_topology
from broker.topology.effective import Setting
from broker.topology.model import Topology
from broker.topology.objects import EXCHANGE, QUEUE, Identity, Object
from broker.topology.route import Router, Routing
from broker.topology.settings import known


class View:
    """A topology whose values are each in order."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.objects = compile_topology(topology, secrets=False).objects
        self.router = Router(self.objects)
        self._settings: dict[Identity, Mapping[str, Setting]] = {}

    @cached_property
    def job_routes(self) -> Mapping[str, Routing]:
        """Where each job goes."""
        return {
            name: self.router.route(job.exchange, job.routing_key)
            for name, job in self.topology.jobs.items()
        }

    @cached_property
    def jobs_in(self) -> Mapping[str, list[str]]:
        """The jobs that reach each queue."""
        found: dict[str, list[str]] = {}
        for job, routing in self.job_routes.items():
            for queue in routing.queues:
                found.setdefault(queue, []).append(job)
        return found

    @cached_property
    def workers_of(self) -> Mapping[str, list[str]]:
        """The workers that consume each queue."""
        found: dict[str, list[str]] = {}
        for name, worker in self.topology.workers.items():
            for queue in worker.queues:
                found.setdefault(queue, []).append(name)
        return found

    def queue(self, name: str) -> Object:
        """Return a queue of the file as an object."""
        return self.objects[Identity(QUEUE, (name,))]

    def exchange(self, name: str) -> Object:
        """Return an exchange of the file as an object."""
        return self.objects[Identity(EXCHANGE, (name,))]

    def settings(self, there: Object) -> Mapping[str, Setting]:
        """Return the settings in force on a queue or exchange."""
        if there.identity not in self._settings:
            self._settings[there.identity] = self.router.settings(there)
        return self._settings[there.identity]


def older_than(topology: Topology, version: str) -> str | None:
    """Return the version that the file is for, if it is older than this one, else None."""
    requires = topology.broker.requires
    return None if known(version, requires) else requires
