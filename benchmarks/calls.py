"""How fast does a call get its reply? Beside Celery's ``rpc://`` and bare pika.

Each has a quorum queue for its requests and 64 messages ahead: our worker and Celery's with two
processes, late acks and the same guarantees, our other pools, and a consumer of pika's that sends
each body back and acknowledges it. First one call at a time, then 2,000 outstanding ones, then an
array of 8 MB there and back: ours as an array, Celery's as a list in JSON (of values with twelve
decimals: with all that a float64 has it is 20 MB, and RabbitMQ takes no message above 16 MiB),
pika's as the same bytes.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.callees import (
    CELERY_JOB,
    CELERY_QUEUE,
    PIKA_QUEUE,
    POOLS,
    SLOTS,
    TOPOLOGY,
    URL,
    WIDE,
)
from benchmarks.rounds import Bar, measure, report
from broker import local
from broker.connection import Address, connect
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.look import look

ROOT = Path(__file__).resolve().parents[1]
ARGUMENT = "x" * 256
ONE_BY_ONE = 300
OUTSTANDING = 2_000
ARRAY = np.round(np.random.default_rng(1).random(1_000_000), 12)
ARRAYS = 3
TIMEOUT_S = 120.0
START_S = 60.0
LOGLEVEL = "WARNING"


def main() -> None:
    """Measure and report, in calls a second."""
    started_here = local.private_url() is None and "RABBITRY_URL" not in os.environ
    address = _address()
    try:
        with Management(address) as management, tempfile.TemporaryDirectory() as folder:
            version = management.version()
            apply(look(Topology.model_validate(TOPOLOGY), management).plan, management)
            try:
                with _workers(address, Path(folder)):
                    _measure(address, version)
            finally:
                management.delete("vhosts", address.vhost_name)
    finally:
        if started_here:
            local.down()


def _address() -> Address:
    url, management_url = os.environ.get("RABBITRY_URL"), os.environ.get("RABBITRY_MANAGEMENT_URL")
    if url is None:
        node = local.up()
        url, management_url = node.url, node.management_url
    address = Address.parse(url, management_url=management_url)
    return address.with_vhost(f"bench-{uuid.uuid4().hex[:8]}")


def _measure(address: Address, version: str) -> None:
    load = os.getloadavg()[0]
    context = {"rabbitmq": version, "load": load, "prefetch": WIDE, "log level": LOGLEVEL}
    with ExitStack() as stack:
        from producers.caller import Caller

        caller = stack.enter_context(Caller(Topology.model_validate(TOPOLOGY), address.url))
        caller.connect()
        celery = _CeleryClient(address)
        pika = stack.enter_context(_PikaClient(address))
        ours = {each: partial(_call, caller, each) for each in POOLS}
        report(
            "one call at a time, calls a second at the median",
            measure(
                {
                    **{f"rabbitry, {each}": partial(_one_by_one, ours[each]) for each in POOLS},
                    "Celery rpc://, prefork": partial(_one_by_one, celery.call),
                    "pika, bare": partial(_one_by_one, lambda value: pika.call(value.encode())),
                },
                rounds=5,
            ),
            unit="calls/s",
            first="rabbitry, prefork",
            context=context,
            bars=[Bar("pika, bare", 1 / 1.5), Bar("Celery rpc://, prefork", 1 / 0.7)],
            libraries=("pika",),
        )
        figures = measure(
            {
                **{f"rabbitry, {each}": partial(_outstanding, caller, each) for each in POOLS},
                "Celery rpc://, prefork": celery.outstanding,
            },
            rounds=5,
        )
        fastest = max(
            (f"rabbitry, {each}" for each in POOLS), key=lambda name: np.median(figures[name])
        )
        for first, bar in (("rabbitry, prefork", 2.5), (fastest, 4.0)):
            report(
                f"{OUTSTANDING:,} outstanding calls, calls a second",
                figures,
                unit="calls/s",
                first=first,
                context=context,
                bars=[Bar("Celery rpc://, prefork", bar)],
            )
        report(
            "8 MB of float64 there and back, times a second",
            measure(
                {
                    "rabbitry, prefork": partial(_arrays, ours["prefork"]),
                    "rabbitry, threads": partial(_arrays, ours["threads"]),
                    "Celery rpc://, JSON": celery.arrays,
                    "pika, the same bytes": partial(_bytes, pika),
                },
                rounds=5,
            ),
            unit="1/s",
            first="rabbitry, prefork",
            context=context,
            bars=[Bar("Celery rpc://, JSON", 20), Bar("pika, the same bytes", 1 / 1.3)],
            libraries=("pika",),
        )
    print(
        f"log level {LOGLEVEL}; all request queues are quorum queues; {SLOTS} slots (solo: one);"
        f" load of the machine before, of {os.cpu_count()} processors: {load:.1f}"
    )


def _call(caller: Any, pool: str, value: Any) -> Any:
    return caller.call(f"bench.{pool}", value, timeout_s=TIMEOUT_S)


def _one_by_one(call: Callable[[Any], Any]) -> float:
    seconds = []
    for _ in range(ONE_BY_ONE):
        started = time.perf_counter()
        call(ARGUMENT)
        seconds.append(time.perf_counter() - started)
    return 1 / statistics.median(seconds)


def _outstanding(caller: Any, pool: str) -> float:
    started = time.perf_counter()
    calls = [
        caller.submit(f"bench.{pool}", ARGUMENT, timeout_s=TIMEOUT_S) for _ in range(OUTSTANDING)
    ]
    for call in calls:
        _check(call.result() == ARGUMENT)
    return OUTSTANDING / (time.perf_counter() - started)


def _arrays(call: Callable[[Any], Any]) -> float:
    started = time.perf_counter()
    for _ in range(ARRAYS):
        back = call(ARRAY)
        _check(back.dtype == ARRAY.dtype and back.shape == ARRAY.shape)
    seconds = time.perf_counter() - started
    _check(back.tobytes() == ARRAY.tobytes())
    return ARRAYS / seconds


def _bytes(pika: _PikaClient) -> float:
    content = ARRAY.tobytes()
    started = time.perf_counter()
    for _ in range(ARRAYS):
        _check(len(pika.call(content)) == len(content))
    return ARRAYS / (time.perf_counter() - started)


def _check(holds: bool) -> None:
    if not holds:
        raise SystemExit("a call came back with something else than was sent")


class _CeleryClient:
    """Calls the worker of Celery's."""

    def __init__(self, address: Address) -> None:
        os.environ[URL] = address.url
        from benchmarks.callees import celery_app

        self._task = celery_app.tasks[CELERY_JOB]

    def call(self, value: Any) -> Any:
        return self._task.delay(value).get(timeout=TIMEOUT_S)

    def outstanding(self) -> float:
        started = time.perf_counter()
        results = [self._task.delay(ARGUMENT) for _ in range(OUTSTANDING)]
        for result in results:
            _check(result.get(timeout=TIMEOUT_S) == ARGUMENT)
        return OUTSTANDING / (time.perf_counter() - started)

    def arrays(self) -> float:
        started = time.perf_counter()
        back = np.array(self.call(ARRAY.tolist()))
        seconds = time.perf_counter() - started
        _check(back.tobytes() == ARRAY.tobytes())
        return 1 / seconds


class _PikaClient:
    """Calls the consumer of pika's by direct reply-to."""

    def __init__(self, address: Address) -> None:
        import pika

        self._properties = pika.BasicProperties(
            delivery_mode=2, reply_to="amq.rabbitmq.reply-to", correlation_id="1"
        )
        self._connection = pika.BlockingConnection(pika.URLParameters(address.url))
        self._channel = self._connection.channel()
        self._answer: bytes | None = None
        self._channel.basic_consume("amq.rabbitmq.reply-to", self._on_reply, auto_ack=True)

    def __enter__(self) -> _PikaClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _on_reply(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        self._answer = body

    def call(self, content: bytes) -> bytes:
        self._answer = None
        self._channel.basic_publish("", PIKA_QUEUE, content, self._properties)
        while self._answer is None:
            self._connection.process_data_events(time_limit=TIMEOUT_S)
        return self._answer


@contextmanager
def _workers(address: Address, folder: Path) -> Iterator[None]:
    topology = folder / "topology.yaml"
    topology.write_text(_yaml(TOPOLOGY))
    python = [sys.executable, "-m"]
    given = {"RABBITRY_TOPOLOGY": str(topology), "RABBITRY_URL": address.url}
    run = [*python, "rabbitry", "worker", "run", "--loglevel", LOGLEVEL]
    commands = {f"calls.{each}": ([*run, each], given) for each in POOLS}
    celery = [
        *(*python, "celery", "-A", "benchmarks.callees:celery_app", "worker"),
        *("-Q", CELERY_QUEUE, "-c", str(SLOTS), "--loglevel", LOGLEVEL),
    ]
    commands[CELERY_QUEUE] = (celery, {URL: address.url})
    commands[PIKA_QUEUE] = ([*python, "benchmarks.callees"], {URL: address.url})
    with ExitStack() as stack:
        for queue, (command, environment) in commands.items():
            stack.enter_context(_process(command, environment, folder / f"{queue}.log"))
        for queue in commands:
            _wait_for_consumer(address, queue)
        yield


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_consumer(address: Address, queue: str) -> None:
    deadline = time.monotonic() + START_S
    connection = connect(address)
    try:
        while not connection.default_channel.queue_declare(queue, passive=True).consumer_count:
            if time.monotonic() > deadline:
                raise SystemExit(f"nobody consumes {queue} after {START_S:g} s")
            time.sleep(0.05)
    finally:
        connection.release()


def _yaml(value: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    YAML(typ="safe").dump(value, text)
    return text.getvalue()


if __name__ == "__main__":
    main()
