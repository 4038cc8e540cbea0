"""The reference documentation names every key and every rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from broker.topology import access, links, load, model, operation, structure
from broker.topology.settings import SETTINGS
from broker.topology.strict import Strict

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "reference" / "topology.md").read_text()

MODELS = [
    each
    for module in (access, links, model, operation, structure)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Strict) and each.__module__ == module.__name__
]


@pytest.mark.parametrize("each", MODELS, ids=lambda each: each.__name__)
def test_every_key_is_in_the_reference(each: type[BaseModel]) -> None:
    assert [name for name in each.model_fields if f"`{name}`" not in TEXT] == []


def test_every_policy_key_and_argument_is_in_the_reference() -> None:
    assert [each.key for each in SETTINGS.values() if f"`{each.key}`" not in TEXT] == []


def test_every_rule_is_in_the_reference() -> None:
    source = Path(load.__file__).read_text() + Path(load.__file__).with_name("lint.py").read_text()
    rules = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)",\n\s+f?"', source))
    assert len(rules) > 5
    assert [rule for rule in sorted(rules) if f"`{rule}`" not in TEXT] == []
