"""Rights, proved as the users themselves."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker.management import Management
from tests.rabbitmq import RabbitMQ

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "rights.md"
PASSWORD = "for/the how-to"


@dataclass
class Shop:
    """The file of the how-to, applied, with users of this test's own."""

    run: Callable[..., Any]
    management: Management
    vhost: str
    prefix: str

    def verify(self, *options: str) -> tuple[int, list[dict[str, Any]]]:
        done = self.run("topology", "verify-rights", "--json", *options)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def allow(self, user: str, **rights: str) -> None:
        body = {"configure": "^$", "write": "^$", "read": "^$", **rights}
        self.management.put("permissions", self.vhost, f"{self.prefix}-{user}", body=body)


@pytest.fixture
def shop(
    rabbitmq: RabbitMQ,
    vhost: str,
    env: dict[str, str],
    rabbitry: Callable[..., Any],
    tmp_path: Path,
) -> Iterator[Shop]:
    prefix = f"shop-{uuid4().hex[:8]}"
    (text,) = re.findall(r"```yaml\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    path = tmp_path / "topology.yaml"
    path.write_text(text.replace("  shop-", f"  {prefix}-"))
    env |= {"RABBITRY_TOPOLOGY": str(path), "SHOP_PASSWORD": PASSWORD}
    with Management(rabbitmq.address(vhost)) as management:
        applied = rabbitry("topology", "apply", "--yes")
        assert applied.returncode == 0, applied.stderr
        yield Shop(rabbitry, management, vhost, prefix)
        for user in ("web", "nightly", "orders", "grafana", "deploy"):
            management.delete("users", f"{prefix}-{user}")


def test_the_commands_of_the_how_to_do_what_it_says(shop: Shop) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    for line in commands.splitlines():
        _, *arguments = shlex.split(line.replace("shop-", f"{shop.prefix}-"))
        done = shop.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    assert "the default exchange" in done.stdout


def test_every_role_can_do_what_it_must_and_nothing_else_and_nothing_is_done(shop: Shop) -> None:
    message = {
        "properties": {},
        "routing_key": "orders",
        "payload": "waits",
        "payload_encoding": "string",
    }
    shop.management.post("exchanges", shop.vhost, "amq.default", "publish", body=message)
    code, verdicts = shop.verify()
    assert code == 0
    assert all(each["holds"] for each in verdicts)
    # Each user is asked both ways, and nothing stays open.
    for user in ("web", "nightly", "orders", "grafana", "deploy"):
        own = [each for each in verdicts if each["user"] == f"{shop.prefix}-{user}"]
        assert {each["expected"] for each in own} == {"allowed", "refused"}
        assert len(own) > 8
    queues = shop.management.get("queues", shop.vhost, disable_stats=True)
    # Nothing can be got from a stream.
    queues = [each for each in queues if each["type"] != "stream"]
    assert sorted(each["name"] for each in queues) == ["failed", "orders", "reports"]
    got = {
        each["name"]: shop.management.post(
            "queues",
            shop.vhost,
            each["name"],
            "get",
            body={"count": 9, "ackmode": "ack_requeue_true", "encoding": "auto"},
        )
        for each in queues
    }
    (waiting,) = got.pop("orders")
    assert (waiting["payload"], waiting["redelivered"]) == ("waits", False)
    assert got == {"failed": [], "reports": []}


@pytest.mark.parametrize(
    ("user", "rights", "wrong"),
    [
        ("web", {"write": "^jobs$"}, {"declare a reply queue", "consume from a reply queue"}),
        ("web", {"write": ".*"}, {"publish to 'jobs.dead'", "publish to the default exchange"}),
        (
            "nightly",
            {"write": "^jobs$", "read": "^orders$|reply"},
            {"consume from 'orders'", "consume from a reply queue"},
        ),
        ("orders", {"read": "^orders$"}, {"publish to 'jobs.dead'"}),
        ("orders", {"write": "^(amq\\.default|jobs\\.dead)$"}, {"consume from 'orders'"}),
        (
            "grafana",
            {"configure": "reports"},
            {"declare 'reports'"},
        ),
    ],
)
def test_a_right_too_many_or_too_few_is_named(
    shop: Shop, user: str, rights: dict[str, str], wrong: set[str]
) -> None:
    shop.allow(user, **rights)
    code, verdicts = shop.verify("--user", f"{shop.prefix}-{user}")
    assert code == 1
    named = {each["action"] for each in verdicts if not each["holds"]}
    assert wrong <= named
    assert {each["user"] for each in verdicts} == {f"{shop.prefix}-{user}"}


def test_a_wrong_password_is_told_without_it(shop: Shop) -> None:
    body = {"password": "another", "tags": ""}
    shop.management.put("users", f"{shop.prefix}-web", body=body)
    done = shop.run("topology", "verify-rights", "--user", f"{shop.prefix}-web")
    assert done.returncode == 1
    assert "log in" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


def test_an_unknown_user_is_a_wrong_call(shop: Shop) -> None:
    done = shop.run("topology", "verify-rights", "--user", f"{shop.prefix}-webb")
    assert done.returncode == 2
    assert f"did you mean '{shop.prefix}-web'" in done.stderr
