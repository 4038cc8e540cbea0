"""The JSON Schema takes what the loader takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from broker.topology import Topology
from broker.topology.schema import json_schema
from broker.topology.source import parse_yaml, read_yaml
from tests.unit.topology.samples import documents

VALIDATOR = Draft202012Validator(json_schema())
REFERENCE = Path(__file__).parents[3] / "topology.yaml"


def test_it_is_a_schema_that_the_reference_file_fits() -> None:
    Draft202012Validator.check_schema(json_schema())
    data, _ = read_yaml(REFERENCE)
    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


@given(documents())
def test_generated_files_fit_it(data: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


@pytest.mark.parametrize(
    "text",
    [
        "queues: {a: {message_ttl: 1h30m, max_length_bytes: 16MiB}}",
        "queues: {a: {max_length_bytes: 1000}}",
        "queues: {a: }\nexchanges:\n",
        "policies: {}\nusers:\n",
        "workers: {w: {queues: [a], grace: 25s}}\nqueues: {a: {}}",
    ],
)
def test_accepted_forms_are_valid(text: str) -> None:
    data, _ = parse_yaml(f"version: 1\nname: t\n{text}\n", file="t.yaml")
    Topology.model_validate(data)
    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


@pytest.mark.parametrize(
    "text", ["queues: {a: {message_ttl: 5}}", "queues: {a: {colour: red}}", "version: 2", "n: 1"]
)
def test_refused_forms_are_not(text: str) -> None:
    data, _ = parse_yaml(f"name: t\n{text}\n", file="t.yaml")
    assert not VALIDATOR.is_valid({"version": 1, **data})
