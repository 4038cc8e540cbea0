"""The web applications in examples/, and clients of theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
# What the applications share is imported as they do it.
sys.path.append(str(EXAMPLES))

CO2 = (EXAMPLES / "data" / "co2.csv").read_bytes()
SUNSPOTS = (EXAMPLES / "data" / "sunspots.csv").read_bytes()


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
