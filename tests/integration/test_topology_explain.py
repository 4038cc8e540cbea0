"""What is in force on queues and exchanges, held to what RabbitMQ itself says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.management import Management
from broker.topology.explain import Explanation, Stated, explain
from broker.topology.objects import EXCHANGE, QUEUE, Identity
from broker.topology.observe import observe

FILE = """version: 1
name: shop
vhost: {name: unused}
exchanges:
  shop: {type: topic, alternate_exchange: rest}
  rest: {type: fanout}
queues:
  orders: {max_length: 10, bindings: [{exchange: rest}]}
"""


@pytest.fixture
def management(rabbitmq: Any, vhost: str) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as client:
        yield client


def policy(management: Management, name: str, *, operator: bool = False, **body: Any) -> None:
    kind = "operator-policies" if operator else "policies"
    management.put(kind, management.address.vhost_name, name, body=body)


def explained(management: Management, kind: str, name: str) -> Explanation:
    vhost = management.address.vhost_name
    folder = "exchanges" if kind == EXCHANGE else "queues"
    answer = management.get(folder, vhost, name, disable_stats=True)
    # Of a single queue RabbitMQ 4.0 says nothing.
    says = kind == EXCHANGE or "effective_policy_definition" in answer
    stated = {Identity(kind, (name,)): Stated.of(answer)} if says else {}
    there = observe(management, vhost)
    (found,) = explain(there.objects, name, effective=there.effective, stated=stated)
    return found


def test_the_policy_of_an_exchange_is_the_one_that_rabbitmq_names(
    management: Management, vhost: str
) -> None:
    management.put("exchanges", vhost, "x", body={"type": "topic"})
    priority = 0
    for to in ("exchanges", "queues", "all", "classic_queues"):
        for pattern in ("^x$", "y", "x|y"):
            priority += 1
            body = {"pattern": pattern, "apply-to": to, "priority": priority}
            # On an exchange also a policy with a queue's keys hides those below it.
            key = "alternate-exchange" if to == "exchanges" else "message-ttl"
            value = "spare" if to == "exchanges" else 5
            policy(management, f"p{priority}", definition={key: value}, **body)
            found = explained(management, EXCHANGE, "x")
            assert found.differs == (), (to, pattern)
    assert any("'p3' (priority 3) matches too and does nothing" in each for each in found.words)


def test_operator_policies_are_told_by_name_and_what_is_unfit_is_said(
    management: Management, vhost: str
) -> None:
    body = {"durable": True, "arguments": {"x-queue-type": "quorum", "x-max-length": 9}}
    management.put("queues", vhost, "q", body=body)
    every = {"pattern": "q", "apply-to": "queues"}
    policy(management, "mine", priority=1, definition={"max-length": 7}, **every)
    policy(management, "theirs", operator=True, priority=1, definition={"max-length": 5}, **every)
    policy(management, "log", priority=5, definition={"max-age": "1h"}, **every)
    found = explained(management, QUEUE, "q")
    assert found.differs == ()
    (line,) = [each for each in found.lines if each.key == "max-length"]
    assert (line.value, line.origin) == (5, "operator policy 'theirs'")
    assert set(line.gave_way) == {("policy 'mine'", 7), ("argument", 9)}
    assert (
        "The policy 'log' matches too and does nothing: a quorum queue does not take max-age."
        in (found.words)
    )


def test_a_policy_that_rabbitmq_names_and_the_patterns_do_not_is_told(
    management: Management, vhost: str
) -> None:
    management.put("exchanges", vhost, "x", body={"type": "topic"})
    there = observe(management, vhost)
    stated = {Identity(EXCHANGE, ("x",)): Stated("other", None)}
    (found,) = explain(there.objects, "x", stated=stated)
    assert 'RabbitMQ says "other" is in force' in found.differs[0]


def test_an_exchange_of_the_file_is_explained_live(rabbitry: Any, tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(FILE)
    options = ("--topology", path)
    assert rabbitry("topology", "apply", "--yes", *options).returncode == 0
    found = rabbitry("topology", "explain", "shop", "--live", "--json", *options)
    document = json.loads(found.stdout)
    (setting,) = document["settings"]
    assert setting["key"] == "alternate-exchange"
    assert setting["origin"].startswith("policy 'shop.generated.exchanges.")
    assert setting["place"] == f"{path}:5:23"
    assert document["differs"] == []
