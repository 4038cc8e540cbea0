"""A worker's slots, divided among its queues."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.topology.model import WorkerSpec
from broker.topology.shares import held, rounds, shares, shares_of

_weights = st.lists(st.integers(1, 1000), min_size=1, max_size=8)
_parts = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(999, 1000))


def _named(weights: list[int]) -> dict[str, int]:
    return {f"q{index}": weight for index, weight in enumerate(weights)}


def _worker(**keys: object) -> WorkerSpec:
    return WorkerSpec.model_validate({"queues": ["high", "low"], **keys})


@pytest.mark.parametrize(
    ("slots", "weights", "found"),
    [
        (4, {"a": 3, "b": 1}, {"a": 3, "b": 1}),
        (4, {"a": 1, "b": 1}, {"a": 2, "b": 2}),
        (3, {"a": 1, "b": 1}, {"a": 2, "b": 1}),
        (2, {"a": 100, "b": 1}, {"a": 1, "b": 1}),
        (10, {"a": 6, "b": 3, "c": 1}, {"a": 6, "b": 3, "c": 1}),
        (10, {"a": 100, "b": 2, "c": 1}, {"a": 8, "b": 1, "c": 1}),
        (64, {"a": 1, "b": 1, "c": 1}, {"a": 22, "b": 21, "c": 21}),
    ],
)
def test_slots_are_divided_by_weight(slots, weights, found) -> None:
    assert shares(slots, list(weights), weights=weights) == found


@given(_weights, st.integers(0, 200))
def test_all_slots_are_given_and_each_queue_has_one(weights: list[int], more: int) -> None:
    named = _named(weights)
    found = shares(len(named) + more, list(named), weights=named)
    assert sum(found.values()) == len(named) + more
    assert all(share >= 1 for share in found.values())
    assert list(found) == list(named)


@given(_weights, st.integers(0, 200))
def test_a_heavier_queue_has_no_fewer_slots(weights: list[int], more: int) -> None:
    named = _named(weights)
    found = shares(len(named) + more, list(named), weights=named)
    for one in named:
        assert all(found[one] >= found[other] for other in named if named[one] > named[other])


@given(_weights, st.integers(0, 200), st.integers(1, 50), st.data())
def test_more_weight_never_costs_a_queue_slots(
    weights: list[int], more: int, added: int, data: st.DataObject
) -> None:
    named = _named(weights)
    chosen = data.draw(st.sampled_from(list(named)))
    slots = len(named) + more
    before = shares(slots, list(named), weights=named)
    after = shares(slots, list(named), weights={**named, chosen: named[chosen] + added})
    assert after[chosen] >= before[chosen]


@given(_weights, st.integers(0, 200), _parts)
def test_the_lower_bands_have_their_part_rounded_up(
    weights: list[int], more: int, part: Fraction
) -> None:
    named = _named(weights)
    slots = len(named) + more
    found = shares(slots, list(named), weights=named, starvation=part)
    assert sum(found.values()) == slots
    assert all(share >= 1 for share in found.values())
    if len(named) > 1:
        _, *lower = named
        # The first band keeps a slot, whatever is asked for.
        assert sum(found[name] for name in lower) >= min(math.ceil(slots * part), slots - 1)
        plain = shares(slots, list(named), weights=named)
        if sum(plain[name] for name in lower) >= math.ceil(slots * part):
            assert found == plain


def test_starvation_is_read_as_people_write_it() -> None:
    assert shares_of(_worker(concurrency=8, weights={"high": 7})) == {"high": 7, "low": 1}
    for written in ("25%", 0.25):
        worker = _worker(concurrency=8, weights={"high": 7}, starvation=written)
        assert shares_of(worker) == {"high": 6, "low": 2}
        assert worker.model_dump(mode="json")["starvation"] == "25%"
    # 0.07 has no exact binary form: seven in a hundred, not eight.
    worker = _worker(concurrency=100, weights={"high": 1000}, starvation=0.07)
    assert shares_of(worker)["low"] == 7


@pytest.mark.parametrize(
    "wrong", ["0%", "100%", "150%", "-5%", "quarter", 1, 0.0, True, "0.25", float("nan")]
)
def test_what_is_no_part_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match=r"part|between"):
        _worker(starvation=wrong)


def test_prefetch_is_what_is_divided_where_it_is_given() -> None:
    worker = _worker(concurrency=2, prefetch=12, weights={"high": 2})
    assert shares_of(worker) == {"high": 8, "low": 4}
    assert (held(worker), rounds(worker)) == (12, 6)
    assert rounds(_worker(concurrency=4, prefetch=2)) == 1


def test_fewer_slots_than_queues_are_refused() -> None:
    with pytest.raises(ValueError, match="1 slots cannot be divided among 2 queues"):
        shares_of(_worker(concurrency=1))
