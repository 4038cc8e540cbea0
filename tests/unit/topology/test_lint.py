"""Every rule is documented, and every documented example triggers exactly its rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import TopologyError
from broker.topology.lint import RULES, check
from broker.topology.lint import __file__ as lint_file
from broker.topology.load import Problem, read
from tests.unit.topology.samples import topology

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "lint.md").read_text()
SECTION = re.compile(
    r"^### (?P<rule>[a-z-]+)\n\n(?P<text>.*?)```yaml\n(?P<yaml>.*?)```", re.M | re.S
)
DOCUMENTED = {found["rule"]: found for found in SECTION.finditer(PAGE)}
HEAD = "version: 1\nname: example\n"


def problems(text: str, folder: Path) -> list[Problem]:
    file = folder / "topology.yaml"
    file.write_text(HEAD + text)
    return read(file)[1]


def used_rules() -> Iterator[str]:
    for path in Path(lint_file).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "finding":
                rule = node.args[1]
                assert isinstance(rule, ast.Constant), ast.unparse(node)
                yield rule.value


def test_every_rule_is_documented_and_no_other() -> None:
    assert list(DOCUMENTED) == re.findall(r"^### (.+)$", PAGE, re.M)
    assert set(DOCUMENTED) == set(RULES)
    assert set(used_rules()) <= set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_the_documented_example_triggers_exactly_its_rule(rule: str, tmp_path: Path) -> None:
    try:
        found = problems(DOCUMENTED[rule]["yaml"], tmp_path)
    except TopologyError:
        assert rule == "file"
        return
    assert {each.rule for each in found} == {rule}
    assert {each.level for each in found} == {RULES[rule].level}
    for each in found:
        assert each.position.line is not None


@pytest.mark.parametrize("rule", RULES)
def test_the_documented_level_is_the_rules(rule: str) -> None:
    fixed = ", fixed" if RULES[rule].fixed else ""
    assert DOCUMENTED[rule]["text"].startswith(f"*{RULES[rule].level}{fixed}.*")


@pytest.mark.parametrize("rule", [rule for rule, each in RULES.items() if not each.fixed])
def test_a_rule_can_be_switched_off(rule: str, tmp_path: Path) -> None:
    text = DOCUMENTED[rule]["yaml"]
    if rule == "lint-unused":
        return
    entry = f'{{rule: {rule}, reason: "we know"}}'
    text = (
        text.replace("ignore: [", f"ignore: [{entry}, ")
        if "lint:" in text
        else (f"{text}lint: {{ignore: [{entry}]}}\n")
    )
    assert problems(text, tmp_path) == []


def test_a_reason_is_needed(tmp_path: Path) -> None:
    found = problems("lint: {ignore: [{rule: swallows}]}\n", tmp_path)
    assert [(each.rule, each.text) for each in found] == [
        ("missing-key", "lint.ignore.0 needs the key 'reason'")
    ]


def test_a_rule_is_switched_off_where_it_says_and_nowhere_else(tmp_path: Path) -> None:
    text = """
exchanges: {a.b: {type: fanout}, a: {type: fanout}}
lint: {ignore: [{rule: swallows, on: exchanges.a, reason: "for another file's queues"}]}
"""
    assert [each.position.column for each in problems(text, tmp_path)] == [13]


def test_the_reference_topology_has_no_finding() -> None:
    assert read(ROOT / "topology.yaml")[1] == []


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ({"queues": {"q": {"arguments": {"x-delivery-limit": "abc"}}}}, "ignored-value"),
        (
            {"queues": {"q": {"arguments": {"x-overflow": "reject-publish-dlx"}}}},
            "ignored-value",
        ),
        (
            {
                "queues": {"q": {"arguments": {"x-dead-letter-exchange": "missing"}}},
            },
            "dead-letter-nowhere",
        ),
        (
            {"shovels": {"s": {"src_uri": "amqp://", "dest_uri": "amqps://me:open@far/"}}},
            "plain-secret",
        ),
        (
            {"users": {"u": {"permissions": {"write": "orders"}}}},
            "not-anchored",
        ),
    ],
)
def test_what_is_accepted_and_wrong_is_found(section: dict[str, object], rule: str) -> None:
    assert [each.rule for each in check(topology(**section))] == [rule]


@pytest.mark.parametrize(
    "uri", ["amqp://me:${PASSWORD}@far/", "amqp://${USER}:${file:pw/x}@far", "amqp://far", "${URI}"]
)
def test_an_address_with_a_reference_is_no_plain_secret(uri: str) -> None:
    shovel = {"src_uri": "amqp://", "dest_uri": uri, "src_queue": "q", "dest_queue": "q"}
    assert check(topology(shovels={"s": shovel})) == []


def test_dead_letter_circles_are_found_through_policies_and_exchange_bindings() -> None:
    found = check(
        topology(
            exchanges={
                "dlx": {"type": "fanout"},
                "on": {"type": "fanout", "bindings": [{"exchange": "dlx"}]},
            },
            queues={
                "first": {"bindings": [{"exchange": "amq.direct", "routing_key": "k"}]},
                "second": {"bindings": [{"exchange": "on"}], "message_ttl": "1s"},
            },
            policies={
                "letters": {
                    "pattern": "^first$",
                    "definition": {"dead-letter-exchange": "dlx"},
                }
            },
        )
    )
    assert found == []
    circle = check(
        topology(
            exchanges={
                "dlx": {"type": "fanout"},
                "on": {"type": "fanout", "bindings": [{"exchange": "dlx"}]},
            },
            queues={
                "first": {
                    "bindings": [
                        {"exchange": "amq.direct", "routing_key": "k"},
                        {"exchange": "on"},
                    ]
                },
            },
            policies={
                "letters": {"pattern": "^first$", "definition": {"dead-letter-exchange": "dlx"}}
            },
        )
    )
    assert [each.rule for each in circle] == ["dead-letter-circle"]


def test_values_that_cannot_be_compared_are_no_traceback() -> None:
    found = topology(
        queues={"q": {"arguments": {"x-max-length": "many", "x-delivery-limit": [1]}}},
        policies={
            "p": {"pattern": "^q$", "definition": {"max-length": "few", "delivery-limit": 2}}
        },
        operator_policies={
            "o": {"pattern": "^q$", "definition": {"max-length": 5, "delivery-limit": "x"}}
        },
    )
    assert {each.rule for each in check(found)} == {"ignored-value"}
