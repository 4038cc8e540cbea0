"""Workers and clients of plain Celery in a virtual host of their own, and the account they keep."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import amqp
from amqp.exceptions import AMQPError, NotFound
from celery import Celery
from kombu import pools

from broker.connection import Address, connect
from broker.management import Management
from tests.conftest import ROOT
from tests.end_to_end.conftest import Daemon
from tests.faults.working import Ledger, Line
from tests.letters import ids
from tests.peers.app import ACCOUNT, GATE, SETTINGS, URL, make
from tests.provision import consumers_of, ready_in
from tests.waiting import until

# Celery's own names and types, unless a test says otherwise.
QUEUE, DEAD = "celery", "dead"
QUORUM: dict[str, Any] = {"task_default_queue_type": "quorum"}
# Late acknowledgements, and what Celery's documentation adds for workers that may be killed.
LATE: dict[str, Any] = {"task_acks_late": True, "task_reject_on_worker_lost": True}


@dataclass
class Plain:
    """Plain Celery on one virtual host.

    Attributes:
        address: of RabbitMQ, with an administrator's rights.
        folder: for logs and the account.
        published: the ids of what was sent.
    """

    address: Address
    folder: Path
    published: set[str] = field(default_factory=set)
    daemons: list[Daemon] = field(default_factory=list)

    def spawn(
        self,
        *words: str,
        settings: dict[str, Any] | None = None,
        prefix: Iterable[str] = (),
        address: Address | None = None,
    ) -> Daemon:
        """Start one of Celery's commands and wait for nothing."""
        daemon = Daemon(
            [*prefix, *_CELERY, *words],
            env=self.environment(settings, address),
            log=self.folder / f"celery-{len(self.daemons)}.log",
            cwd=ROOT,
        )
        self.daemons.append(daemon)
        return daemon

    def worker(self, *options: str, queue: str = QUEUE, **where: Any) -> Daemon:
        """Start a worker; wait until it consumes from a queue."""
        others = self.consumers(queue)
        daemon = self.spawn("worker", "--loglevel", "INFO", *options, **where)

        def ready() -> re.Match[str] | None:
            assert daemon.process.poll() is None, daemon.log
            return _READY.search(daemon.log) if self.consumers(queue) > others else None

        name = until(ready, timeout_s=60, what="the worker to consume")[1]
        # In the first moment of its loop it catches whatever a message causes; the second answer
        # comes after that.
        with self.client() as client:
            for _ in range(2):
                until(lambda: client.control.ping([name], timeout=1, limit=1), 30, "an answer")
        return daemon

    def ask(self, *words: str, **where: Any) -> subprocess.CompletedProcess[str]:
        """Run one of Celery's commands to its end."""
        return subprocess.run(
            [*_CELERY, *words],
            env=self.environment(**where),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def environment(
        self, settings: dict[str, Any] | None = None, address: Address | None = None
    ) -> dict[str, str]:
        """Return the environment of a process of Celery's."""
        return {
            **os.environ,
            URL: (address or self.address).url,
            SETTINGS: json.dumps(settings or {}),
            ACCOUNT: str(self.folder / "account"),
            GATE: str(self.folder / "gate"),
        }

    @contextmanager
    def client(
        self, settings: dict[str, Any] | None = None, *, address: Address | None = None
    ) -> Iterator[Celery]:
        """A client in this process, closed afterwards."""
        client = make((address or self.address).url, settings or {})
        try:
            yield client
        finally:
            # Closed in order, so that RabbitMQ has read what was sent: a pool only drops its own.
            with suppress(OSError, AMQPError):
                client.pool.acquire(block=True).close()
            client.close()
            pools.reset()

    def send(
        self,
        name: str,
        *args: Any,
        count: int = 1,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[str]:
        """Send a task, or many; return their ids."""
        first = len(self.published)
        sent = [f"{name}-{first + number:06}" for number in range(count)]
        with self.client(settings) as client:
            for id in sent:
                client.send_task(name, args, task_id=id, **options)
        self.published |= set(sent)
        return sent

    @contextmanager
    def user(self, **rights: str) -> Iterator[Address]:
        """A user with these rights in the virtual host, and none but these."""
        name, password = f"plain-{uuid.uuid4().hex[:8]}", "of-the-test"
        with Management(self.address) as management:
            management.put("users", name, body={"password": password, "tags": ""})
            management.put("permissions", self.address.vhost_name, name, body=rights)
            try:
                yield replace(self.address, user=name, password=password)
            finally:
                management.delete("users", name)

    def policy(self, **definition: Any) -> None:
        """Put a policy on every queue but the one of dead letters."""
        body = {
            "pattern": f"^(?!{DEAD}$)",
            "apply-to": "queues",
            "definition": {key.replace("_", "-"): value for key, value in definition.items()},
        }
        with Management(self.address) as management:
            management.put("policies", self.address.vhost_name, "plain", body=body)

    def put(self, body: bytes, *, id: str, task: str | None = "work", **properties: Any) -> None:
        """Publish a message as it stands, by default with what Celery's clients say of a task."""
        settings = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        headers = {"id": id} if task is None else {"id": id, "task": task, "lang": "py"}
        connection = connect(self.address)
        try:
            connection.default_channel.basic_publish(
                amqp.Message(body, application_headers=headers, correlation_id=id, **settings),
                "",
                QUEUE,
            )
        finally:
            connection.release()
        self.published.add(id)

    def declare(self, queue: str, **arguments: Any) -> None:
        """Declare a queue."""
        connection = connect(self.address)
        try:
            table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
            connection.default_channel.queue_declare(
                queue, durable=True, auto_delete=False, arguments=table
            )
        finally:
            connection.release()

    def is_empty(self, queue: str = QUEUE) -> bool:
        """Say whether a queue holds nothing, taken or not; management may be seconds late."""
        if ready_in(self.address, queue):
            return False
        with Management(self.address) as management:
            found = management.get("queues", self.address.vhost_name, queue)
        return bool(found.get("messages") == 0)

    def consumers(self, queue: str = QUEUE) -> int:
        """Return how many consumers a queue has that may not be there yet."""
        try:
            return consumers_of(self.address, queue)
        except NotFound:
            return 0

    def lines(self) -> list[Line]:
        """Return what the tasks have written so far."""
        path = self.folder / "account"
        if not path.exists():
            return []
        # The last line may be half there: it is being written.
        return [Line(**json.loads(line)) for line in path.read_text().split("\n")[:-1]]

    def done(self) -> list[str]:
        """Return the ids of the tasks that are done, in their order."""
        return [line.id for line in self.lines() if line.event == "done"]

    def events(self, id: str) -> list[str]:
        """Return what has happened to a task."""
        return [line.event for line in self.lines() if line.id == id]

    def begun(self, id: str) -> list[Line]:
        """Return each time that a task began."""
        return [line for line in self.lines() if (line.event, line.id) == ("began", id)]

    def ledger(self, *, dead: bool = False) -> Ledger:
        """Add up what was sent and where it is.

        Args:
            dead: also look into the queue of dead letters.
        """
        return Ledger(
            frozenset(self.published),
            tuple(self.lines()),
            Counter(ids(self.address, QUEUE)),
            Counter(ids(self.address, DEAD) if dead else ()),
        )

    def end(self) -> None:
        """End all processes, however they are."""
        for daemon in self.daemons:
            daemon.end()


_READY = re.compile(r"(\S+) ready\.")
_CELERY = (sys.executable, "-m", "celery", "-A", "tests.peers.app")
