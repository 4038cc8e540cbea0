"""The server of the probes: what it answers, and that no client and no busy thread holds it up."""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from broker.errors import InvalidInput, WorkerError
from consumers.health import Answer, Health
from consumers.metrics import JobMetrics, registry_of
from consumers.pulse import Pulse
from tests.probes import ANYWHERE, Probe
from tests.waiting import until

Make = Callable[..., Probe]
# Of a test's own clock, and so that a machine that is busy with other tests does not matter.
STUCK_S = 0.5


@pytest.fixture(autouse=True)
def _switching() -> Iterator[None]:
    """Leave the interpreter as it was: a server lets it switch threads more often."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def good() -> Answer:
    return Answer(True, {})


def probe_of(
    *,
    live: Callable[[], Answer] = good,
    ready: Callable[[], Answer] = good,
    registry: CollectorRegistry | None = None,
) -> Probe:
    health = Health(ANYWHERE, live=live, ready=ready, registry=registry or CollectorRegistry())
    health.start()
    return Probe(health.url)


def metrics() -> JobMetrics:
    """Return the metrics of a worker with as many jobs as the reference topology."""
    counted = JobMetrics(info={"worker": "w"}, slots=2, consuming=lambda: {"q": True})
    for index in range(8):
        job = f"job-{index}"
        counted.received(job, "q", waited_s=0.2, redelivered=False)
        counted.began(job, "q")
        counted.ended(job, "q", "done", ran_s=0.3)
    return counted


def say(probe: Probe, request: bytes) -> bytes:
    """Send bytes; return all that comes back."""
    host, _, port = probe.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(request)
        found = b""
        while part := client.recv(65536):
            found += part
    return found


def test_probes_say_200_or_503_and_why() -> None:
    answer = [Answer(True, {"live": True})]
    probe = probe_of(live=lambda: answer[0], ready=lambda: Answer(False, {"queues": {"q": "gone"}}))
    assert probe.get("/livez?verbose") == (200, '{"live": true}\n')
    answer[0] = Answer(False, {"live": False})
    assert probe.code("/livez") == 503
    code, text = probe.get("/readyz")
    assert (code, json.loads(text)) == (503, {"queues": {"q": "gone"}})


def test_metrics_come_in_both_of_prometheus_formats() -> None:
    probe = probe_of(registry=registry_of(metrics()))
    code, text = probe.get("/metrics")
    assert code == 200
    assert 'rabbitry_worker_jobs_total{job_name="job-1",outcome="done",queue="q"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    _, text = probe.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\xff\xfe\xfd a b\r\n\r\n", b"405"),
    ],
)
def test_other_requests_are_refused(request_: bytes, code: bytes) -> None:
    assert say(probe_of(), request_).split()[1] == code


def test_head_has_no_body() -> None:
    head = say(probe_of(), b"HEAD /livez HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")


def test_a_head_without_end_is_cut_off() -> None:
    probe = probe_of()
    with suppress(BrokenPipeError, ConnectionResetError):
        assert say(probe, b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 5000) == b""
    assert probe.code("/livez") == 200


def test_a_probe_that_fails_is_said_and_ends_nothing() -> None:
    probe = probe_of(live=lambda: Answer(bool(1 / 0), {}))
    assert probe.code("/livez") == 500
    assert probe.code("/readyz") == 200


def test_a_port_in_use_and_an_address_that_is_none_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(WorkerError, match=f"127.0.0.1:{port}: Address already in use"):
            Health(f"127.0.0.1:{port}", live=good, ready=good, registry=CollectorRegistry())
    with pytest.raises(WorkerError, match=r"no-such-host\.invalid:1"):
        Health("no-such-host.invalid:1", live=good, ready=good, registry=CollectorRegistry())
    with pytest.raises(InvalidInput, match="'9808' is no HOST:PORT"):
        Health("9808", live=good, ready=good, registry=CollectorRegistry())


def test_a_loop_that_is_blocked_is_told_from_one_that_turns() -> None:
    pulse = Pulse(stuck_s=STUCK_S)
    probe = probe_of(live=lambda: Answer(pulse.problem() is None, {"why": pulse.problem()}))
    go_on, over = threading.Event(), threading.Event()

    def loop() -> None:
        while not over.is_set():
            pulse.beat()
            over.wait(STUCK_S / 20)
            go_on.wait()

    turning = threading.Thread(target=loop)
    go_on.set()
    turning.start()
    try:
        until(lambda: probe.code("/livez") == 200, timeout_s=20, what="a loop that turns")
        go_on.clear()
        until(lambda: probe.code("/livez") == 503, timeout_s=20, what="a loop that is stuck")
        go_on.set()
        until(lambda: probe.code("/livez") == 200, timeout_s=20, what="a loop that turns again")
    finally:
        go_on.set()
        over.set()
        turning.join()


def test_children_do_not_hold_the_port() -> None:
    health = Health(ANYWHERE, live=good, ready=good, registry=CollectorRegistry())
    health.start()
    inode = Path(f"/proc/self/fd/{health._socket.fileno()}").readlink()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child, which tells what it has open
        held = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        os.write(write, b"held" if inode in held else b"free")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 4) == b"free"
    os.close(read)
    os.close(write)
    assert Probe(health.url).code("/livez") == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_answers_come_in_milliseconds_while_the_interpreter_is_busy(path: str) -> None:
    """The middle one of many answers, which what else the machine does hardly moves."""
    probe = probe_of(registry=registry_of(metrics()))
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            sum(range(10_000))

    busy = threading.Thread(target=work)
    busy.start()
    took_s = []
    began_s, used_s = time.perf_counter(), time.process_time()
    try:
        for _ in range(51):
            began = time.perf_counter()
            assert probe.code(path) == 200
            took_s.append(time.perf_counter() - began)
    finally:
        over.set()
        busy.join()
    # This process always has something to do: what it did not get of one processor others had.
    slower = (time.perf_counter() - began_s) / (time.process_time() - used_s)
    # Measured without the shorter switch interval: 70 ms and more.
    assert statistics.median(took_s) < 0.05 * max(1.0, slower), f"{slower:.1f} times slower"
