"""A plain Celery application, as Celery's own documentation has it: what ours is held against.

Nothing of this project is imported here. A test says by environment variables where RabbitMQ is,
which settings differ from Celery's own, and where the tasks keep their account, whose lines are
those of `tests.faults.working`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from celery.signals import task_failure

URL, SETTINGS, ACCOUNT, GATE = "PLAIN_URL", "PLAIN_SETTINGS", "PLAIN_ACCOUNT", "PLAIN_GATE"


def make(url: str, settings: dict[str, Any]) -> Celery:
    """Return an application with Celery's own settings but for these."""
    made = Celery("plain", broker=url, set_as_current=False)
    # Said of workers alone, which warn where it is not.
    made.conf.update({"broker_connection_retry_on_startup": True, **settings})
    return made


app = make(os.environ.get(URL, "memory://"), json.loads(os.environ.get(SETTINGS, "{}")))


def note(task: Any, event: str) -> None:
    """Write down where the task of a request is."""
    request = task.request
    attempt = int((request.headers or {}).get("x-delivery-count", 0)) + 1
    write(event, request.id, attempt, redelivered=bool(request.delivery_info["redelivered"]))


def write(event: str, id: str, attempt: int, *, redelivered: bool) -> None:
    """Write a line of the account, at once and whole."""
    line = {
        "event": event,
        "id": id,
        "attempt": attempt,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "redelivered": redelivered,
        "at": time.time(),
    }
    file = os.open(os.environ[ACCOUNT], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (json.dumps(line) + "\n").encode())
    os.close(file)


@task_failure.connect
def failed(*, task_id: str, **_: Any) -> None:
    """Write down each time that Celery tells of a failure."""
    write("failed", task_id, 0, redelivered=False)


@app.task(name="work", bind=True)
def work(self: Any, seconds: float = 0) -> None:
    note(self, "began")
    time.sleep(seconds)
    note(self, "done")


@app.task(name="gated", bind=True)
def gated(self: Any) -> None:
    """Wait at the gate: each byte lets one through."""
    note(self, "began")
    with open(os.environ[GATE], "rb", buffering=0) as gate:  # noqa: PTH123 - a named pipe
        gate.read(1)
    note(self, "done")


@app.task(name="poison", bind=True)
def poison(self: Any) -> None:
    note(self, "began")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="fails", bind=True)
def fails(self: Any) -> None:
    note(self, "began")
    raise LookupError("no such thing")


@app.task(name="tries", bind=True, max_retries=1)
def tries(self: Any) -> None:
    note(self, "began")
    raise self.retry(countdown=0, exc=LookupError("no such thing"))


@app.task(name="endless", bind=True, time_limit=1)
def endless(self: Any) -> None:
    note(self, "began")
    time.sleep(60)


@app.task(name="rejects", bind=True)
def rejects(self: Any) -> None:
    note(self, "began")
    raise Reject("no such thing", requeue=False)
