"""The reference documentation names every key and every rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from broker.topology import (
    access,
    delays,
    links,
    model,
    operation,
    schedules,
    structure,
    switches,
)
from broker.topology.settings import SETTINGS
from broker.topology.strict import Strict

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "reference" / "topology.md").read_text()

MODELS = [
    each
    for module in (access, delays, links, model, operation, schedules, structure, switches)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Strict) and each.__module__ == module.__name__
]


@pytest.mark.parametrize("each", MODELS, ids=lambda each: each.__name__)
def test_every_key_is_in_the_reference(each: type[BaseModel]) -> None:
    assert [name for name in each.model_fields if f"`{name}`" not in TEXT] == []


def test_every_policy_key_and_argument_is_in_the_reference() -> None:
    assert [each.key for each in SETTINGS.values() if f"`{each.key}`" not in TEXT] == []
