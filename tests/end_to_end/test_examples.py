"""The web applications in examples/, as one command each, asked by a real HTTP client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from broker.management import Management
from broker.topology import Topology
from producers.caller import Caller
from tests.provision import provision
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))

from web import lowess, requests  # noqa: E402
from web.calls import Calls  # noqa: E402
from web.services import TOPOLOGY, serving  # noqa: E402

COMMANDS = {"wsgi": ["examples/wsgi/app.py"], "django": ["examples/django/manage.py", "serve"]}
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
MARK = "RABBITRY_EXAMPLE_TEST"
CO2 = (EXAMPLES / "data" / "co2.csv").read_bytes()
SUNSPOTS = (EXAMPLES / "data" / "sunspots.csv").read_bytes()
# A job that is still under way when it has been looked at: a second on a quick machine.
LONG = {"resamples": 1200, "passes": 4}
# Far longer, for those that do not run to their end.
ENDLESS = {"resamples": 5000, "passes": 10, "window": 301}


@dataclass(frozen=True, slots=True)
class Site:
    """A running example.

    Attributes:
        client: asks it.
        process: of the command.
    """

    client: httpx.Client
    process: subprocess.Popen[str]

    def submit(self, csv: bytes = SUNSPOTS, **settings: Any) -> str:
        answer = self.client.post("jobs", content=csv, params=settings)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    @contextmanager
    def events(self, id: str, *, after: int | None = None) -> Iterator[Iterator[Any]]:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.client.stream("GET", f"jobs/{id}/events", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["Content-Type"].startswith("text/event-stream")
            yield read_events(response)

    def result(self, id: str) -> dict[str, Any]:
        with self.events(id) as events:
            *_, (_, kind, data) = events
        assert kind == "result", data
        return data


def read_events(response: httpx.Response) -> Iterator[tuple[int, str, Any]]:
    """Yield number, kind and data of each event as it comes."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "event" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


@pytest.fixture(scope="module")
def web_vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A virtual host that the tests of this module share."""
    name = f"ex-{uuid.uuid4().hex[:12]}"
    yield name
    with Management(rabbitmq.address()) as management:
        management.delete("vhosts", name)
        for each in management.get("global-parameters"):
            value = each["value"]
            if isinstance(value, dict) and value.get("vhost") == name:
                management.delete("global-parameters", each["name"])


@pytest.fixture(scope="module", params=COMMANDS)
def site(
    request: pytest.FixtureRequest,
    rabbitmq: RabbitMQ,
    web_vhost: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """An example, started by its one command; Ctrl-C ends it and all that it started."""
    log = tmp_path_factory.mktemp(request.param) / "stderr"
    value = uuid.uuid4().hex
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *COMMANDS[request.param], "--port", "0"],
            cwd=ROOT,
            env={
                **os.environ,
                MARK: value,
                "RABBITRY_URL": rabbitmq.url(web_vhost),
                "RABBITRY_MANAGEMENT_URL": rabbitmq.management_url,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()  # ends with the process, at the latest
        assert address, log.read_text()
        with httpx.Client(base_url=address, timeout=START_TIMEOUT_S, trust_env=False) as client:
            yield Site(client, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_TIMEOUT_S) == 130, log.read_text()
        assert "Traceback" not in log.read_text()
        assert running(value) == []
    finally:
        for pid in running(value):  # only where a test has failed
            os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def running(value: str) -> list[int]:
    """Return what runs with the mark of an example."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is not ours to look at
    return found


def plain_lowess(series: np.ndarray, window: int, passes: int) -> np.ndarray:
    """Robust local regression by numpy's polyfit, one place after the other."""
    there = np.flatnonzero(np.isfinite(series))
    values, robust, curve = series[there], np.ones(len(there)), np.empty(len(series))
    for _ in range(passes + 1):
        for place in range(len(series)):
            away = np.abs(there - place)
            near = np.sort(np.argsort(away, kind="stable")[:window])
            tricube = (1 - (away[near] / (away[near].max() * 1.001)) ** 3) ** 3
            weights = np.sqrt(tricube * robust[near])
            curve[place] = np.polyfit(there[near] - place, values[near], 1, w=weights)[1]
        off = np.abs(values - curve[there])
        robust = np.square(1 - np.square(np.clip(off / (6 * np.median(off)), 0, 1)))
    return curve


def test_the_page_and_its_data_come_from_one_place(site):
    page = site.client.get("")
    assert page.status_code == 200
    assert "EventSource" in page.text
    assert "//" not in page.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
    assert site.client.get("data/co2.csv").content == CO2
    assert site.client.get("data/../README.md").status_code == 404
    assert site.client.head("").status_code == 200


def test_an_answer_comes_at_once_and_the_result_is_numpys_own(site):
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        id = site.submit(SUNSPOTS, window=11, resamples=20)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.1
    result = site.result(id)
    series = requests.read_column(SUNSPOTS, "SUNACTIVITY")
    np.testing.assert_allclose(result["smoothed"], plain_lowess(series, 11, 2), atol=1e-9)
    own = lowess.curve_with_band(series, window=11, passes=2, resamples=20)
    for name in ("smoothed", "low", "high"):
        assert result[name] == own[name].tolist()
    assert result["ran_s"] >= 0


def test_events_come_one_by_one_while_the_job_runs(site):
    id = site.submit(SUNSPOTS, **LONG)
    with site.events(id) as events:
        heard = []
        for number, kind, data in events:
            heard.append((number, kind, data))
            if kind == "progress" and data["fraction"] > 0:
                break
        # Nothing was held back: the job is not done yet.
        assert data["fraction"] < 1
        assert site.client.get(f"jobs/{id}").json()["state"] == "running"
        heard += events
    assert [number for number, *_ in heard] == sorted({number for number, *_ in heard})
    kinds = [kind for _, kind, _ in heard]
    assert kinds[0] == "accepted"
    assert kinds[-1] == "result"
    assert set(kinds[1:-1]) == {"progress", "partial"}
    fractions = [data["fraction"] for _, kind, data in heard if kind == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    partial = next(data for _, kind, data in heard if kind == "partial")
    assert partial.keys() <= {"smoothed", "low", "high"}
    assert site.client.get(f"jobs/{id}").json()["state"] == "done"


def test_two_clients_at_once_get_each_its_own(site):
    def ask(csv: bytes) -> dict[str, Any]:
        return site.result(site.submit(csv, resamples=100))

    with ThreadPoolExecutor(2) as both:
        co2, sunspots = both.map(ask, (CO2, SUNSPOTS))
    for result, csv in ((co2, CO2), (sunspots, SUNSPOTS)):
        own = lowess.curve_with_band(
            requests.read_column(csv, None), window=53, passes=2, resamples=100
        )
        assert result["high"] == own["high"].tolist()


def test_who_leaves_does_not_cancel_and_comes_back_to_what_is_new(site):
    id = site.submit(SUNSPOTS, **LONG)
    with site.events(id) as events:
        last = next(number for number, kind, _ in events if kind == "progress")
    assert site.client.get(f"jobs/{id}").json()["state"] == "running"
    with site.events(id, after=last) as events:
        heard = list(events)
    assert heard[0][0] > last
    assert heard[-1][1] == "result"
    with site.events(id, after=heard[-1][0]) as events:
        assert list(events) == []


def test_who_gives_up_hears_so_and_the_worker_is_free_again(site):
    ids = [site.submit(SUNSPOTS, **ENDLESS) for _ in range(2)]
    for id in ids:
        with site.events(id) as events:
            next(event for event in events if event[1] == "progress")
            assert site.client.delete(f"jobs/{id}").json() == {"id": id, "given_up": True}
            *_, (_, kind, data) = events
        assert kind == "error"
        assert data["error"] == "Cancelled"
        assert site.client.delete(f"jobs/{id}").json()["given_up"] is False
    # Both of the worker's slots were taken, for minutes.
    assert site.result(site.submit(SUNSPOTS, resamples=1))["waited_s"] < 15


BAD = [
    (b"", {}, 400, "Content-Length|CSV"),
    (b"\xff\xfe\x00binary", {}, 400, "not a CSV file in UTF-8"),
    (b"no rows here", {}, 400, "header and rows"),
    (b'a,"b\n1,2\n', {}, 400, "not a CSV file"),
    (b"a,b\n1,2\n3\n", {}, 400, "row 3 has 1 fields"),
    (b"a,b\n1,2\n3,x\n", {}, 400, "row 3: 'x' in column 'b' is not a number"),
    (b"a\n1\n\nnan\n", {}, 400, "at least 3"),
    (SUNSPOTS, {"column": "FLUX"}, 400, "no column 'FLUX'; there are YEAR, SUNACTIVITY"),
    (SUNSPOTS, {"window": "2"}, 400, "window is a whole number from 3 to 301"),
    (SUNSPOTS, {"resamples": "1e9"}, 400, "resamples is a whole number"),
    (SUNSPOTS, {"windoww": "3"}, 400, "no setting 'windoww'"),
    (b"a\n1\n2\n3\n", {"window": "5"}, 400, "more than the column's 3 numbers"),
    (b"a\n" + b"1\n" * 10_001, {}, 413, "at most 10,000"),
    (b"a\n" + b"1\n" * 2_000_000, {}, 413, "at most 524,288"),
]


@pytest.mark.parametrize(("body", "settings", "status", "words"), BAD)
def test_bad_input_is_a_sentence(site, body, settings, status, words):
    answer = site.client.post("jobs", content=body, params=settings)
    assert answer.status_code == status
    assert pytest.approx(1) == len(answer.json()["message"].splitlines())
    assert any(word in answer.json()["message"] for word in words.split("|"))


def test_what_is_not_there_is_404(site):
    for method, path in (("GET", "jobs/x"), ("GET", "jobs/x/events"), ("DELETE", "jobs/x")):
        answer = site.client.request(method, path)
        assert answer.status_code == 404
        assert "this process has no job 'x'" in answer.json()["message"]
    assert site.client.get("nothing").status_code == 404


# -- what goes wrong around it, with the application in this process ------------------


def wsgi_application(calls: Calls) -> Any:
    spec = spec_from_file_location("wsgi_example", EXAMPLES / "wsgi" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Application(calls)


@contextmanager
def serving_calls(url: str, **options: Any) -> Iterator[tuple[Calls, httpx.Client]]:
    with Caller(Topology.load(TOPOLOGY), url) as caller:
        calls = Calls(caller, **options)
        with (
            serving(wsgi_application(calls)) as address,
            httpx.Client(base_url=address, timeout=30, trust_env=False) as client,
        ):
            yield calls, client


@pytest.fixture
def no_worker(rabbitmq: RabbitMQ, vhost: str) -> str:
    """The address of a virtual host with the example's topology, where no worker runs."""
    provision(Topology.load(TOPOLOGY), rabbitmq.address(vhost))
    return rabbitmq.url(vhost)


def test_where_no_worker_runs_the_stream_ends_with_an_error(no_worker):
    with serving_calls(no_worker, timeout_s=0.5) as (_, client):
        id = client.post("jobs", content=SUNSPOTS).json()["id"]
        with client.stream("GET", f"jobs/{id}/events") as response:
            [(_, kind, data)] = read_events(response)
    assert kind == "error"
    assert data["error"] == "CallTimeout"
    assert "0.5" in data["message"]


def test_where_there_is_no_room_it_is_busy_and_the_old_make_way(no_worker):
    with serving_calls(no_worker, most=2, most_streams=1) as (calls, client):
        first, second = (client.post("jobs", content=SUNSPOTS).json()["id"] for _ in range(2))
        refused = client.post("jobs", content=SUNSPOTS)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert "2 jobs are under way" in refused.json()["message"]

        stream = calls.events(first)
        assert client.get(f"jobs/{second}/events").status_code == 503
        stream.close()
        with client.stream("GET", f"jobs/{second}/events") as response:
            assert response.status_code == 200
            assert client.delete(f"jobs/{second}").json()["given_up"]
            assert [kind for _, kind, _ in read_events(response)] == ["error"]

        assert client.post("jobs", content=SUNSPOTS).status_code == 202
        assert client.get(f"jobs/{second}").status_code == 404
        assert client.get(f"jobs/{first}").status_code == 200


def test_an_ended_job_is_forgotten_after_a_while(no_worker):
    now = 0.0
    with serving_calls(no_worker, keep_s=10, clock=lambda: now) as (_, client):
        id = client.post("jobs", content=SUNSPOTS).json()["id"]
        client.delete(f"jobs/{id}")
        now = 9.0
        assert client.get(f"jobs/{id}").json()["state"] == "failed"
        now = 11.0
        assert client.get(f"jobs/{id}").status_code == 404


def test_a_full_queue_and_an_unknown_one_are_503_with_a_sentence(rabbitmq, vhost, no_worker):
    with (
        Management(rabbitmq.address(vhost)) as management,
        serving_calls(no_worker) as (_, client),
    ):
        management.delete("queues", vhost, "web.series")
        answer = client.post("jobs", content=SUNSPOTS)
    assert answer.status_code == 503
    assert answer.json()["error"] == "Unroutable"
    assert "web.lowess" in answer.json()["message"]


def test_without_rabbitmq_an_answer_is_503_at_once():
    with serving_calls("amqp://guest:guest@127.0.0.1:1/x") as (_, client):
        for _ in range(2):
            began = time.monotonic()
            answer = client.post("jobs", content=SUNSPOTS)
            assert time.monotonic() - began < 3
            assert answer.status_code == 503
            assert answer.json()["error"] == "Unreachable"
            assert "127.0.0.1:1" in answer.json()["message"]


def test_a_client_that_goes_frees_its_stream(no_worker, monkeypatch):
    monkeypatch.setattr("web.history.HEARTBEAT_S", 0.05)
    with serving_calls(no_worker, most_streams=1) as (_, client):
        id = client.post("jobs", content=SUNSPOTS).json()["id"]
        with client.stream("GET", f"jobs/{id}/events") as response:
            next(response.iter_lines())
        until(
            lambda: client.get(f"jobs/{id}").json()["state"] == "waiting" and opens(client, id),
            timeout_s=20,
            what="the stream to be free again",
        )


def opens(client: httpx.Client, id: str) -> bool:
    with client.stream("GET", f"jobs/{id}/events") as response:
        return response.status_code == 200


def test_what_rabbitmq_does_not_confirm_in_time_is_given_up(no_worker, monkeypatch):
    with serving_calls(no_worker, most=2) as (_, client):
        assert client.post("jobs", content=SUNSPOTS).status_code == 202
        monkeypatch.setattr("web.calls.CONFIRM_S", 1e-9)
        for _ in range(2):  # what is given up takes no room
            answer = client.post("jobs", content=SUNSPOTS)
            assert answer.status_code == 503
            assert answer.json()["error"] == "NotTaken"
        monkeypatch.undo()
        assert client.post("jobs", content=SUNSPOTS).status_code == 202
