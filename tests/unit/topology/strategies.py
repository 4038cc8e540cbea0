"""Whole topologies, generated: every kind of object, every key, names with every sign."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from broker.topology.policies import escape
from tests.unit.topology.samples import names

PASSWORD_VARIABLE = "PROPERTY_TEST_PASSWORD"

_durations = st.sampled_from(["1s", "250ms", "5m", "2h", "14d", "1h30m"])
_long = st.sampled_from(["2h", "14d", "1d12h"])
_counts = st.integers(min_value=1, max_value=2**31)
_sizes = st.sampled_from([1000, "1MiB", "2GB", 4097])
_locator = st.sampled_from(["client-local", "balanced"])
_versions = {"version": 1, "broker": {"requires": "4.3"}}
_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
_json = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**31) | _texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_texts, inner, max_size=2),
    max_leaves=4,
)
# Arguments that RabbitMQ stores and compares as they stand; null is no value to it.
_own = st.dictionaries(st.sampled_from(["x-own", "x-own.2", "x own/%"]), _json, max_size=2)


def _optional(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    fixed = {key: st.just(value) for key, value in required.items()}
    return st.fixed_dictionaries(fixed, optional=optional)


def _quorum(exchange: st.SearchStrategy[str], **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    return _optional(
        {"type": "quorum"},
        retry=_optional(
            {"delay": "1s"},
            max_delay=st.just("1m"),
            limit=st.integers(0, 50),
            type=st.sampled_from(["failed", "returned", "all"]),
        ),
        dead_letter=st.fixed_dictionaries(
            {"exchange": exchange},
            optional={"routing_key": names, "strategy": st.just("at-least-once")},
        ),
        single_active_consumer=st.booleans(),
        quorum_initial_group_size=st.just(1),
        message_ttl=_durations,
        expires=_long,
        max_length=_counts,
        max_length_bytes=_sizes,
        overflow=st.just("reject-publish"),
        consumer_timeout=_durations,
        consumer_disconnected_timeout=_durations,
        queue_leader_locator=_locator,
        target_group_size=st.just(1),
        arguments=_own,
        **more,
    )


def _classic(exchange: st.SearchStrategy[str], **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    return _optional(
        {"type": "classic"},
        dead_letter=st.fixed_dictionaries({"exchange": exchange}, optional={"routing_key": names}),
        auto_delete=st.booleans(),
        single_active_consumer=st.booleans(),
        max_priority=st.integers(1, 10),
        message_ttl=_durations,
        expires=_long,
        max_length=_counts,
        max_length_bytes=_sizes,
        overflow=st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"]),
        queue_leader_locator=_locator,
        arguments=_own,
        **more,
    )


_stream = _optional(
    {"type": "stream"},
    max_age=st.sampled_from(["1d", "90s", "2h"]),
    max_length_bytes=_sizes,
    stream_max_segment_size_bytes=st.sampled_from(["1MiB", 500_000]),
    stream_filter_size_bytes=st.integers(16, 255),
    initial_cluster_size=st.just(1),
    queue_leader_locator=_locator,
    arguments=_own,
)
_policy = st.fixed_dictionaries(
    # Of names that no generated one begins with: it must not hide a generated policy.
    {"pattern": st.sampled_from([r"^others\.", r"^other-(a|b)$"])},
    optional={
        "definition": st.just({"message-ttl": "1h30m", "max-length-bytes": "16MiB"}),
        "apply_to": st.sampled_from(["queues", "quorum_queues", "classic_queues"]),
    },
).map(lambda policy: {"definition": {"max-length": 5}, **policy})
_operator_policy = st.fixed_dictionaries(
    {
        "pattern": st.sampled_from(["^others", "^o$"]),
        "definition": st.dictionaries(
            st.sampled_from(["max-length", "max-length-bytes", "message-ttl"]),
            st.integers(1, 1000),
            min_size=1,
        ),
    },
    optional={"apply_to": st.sampled_from(["queues", "classic_queues", "quorum_queues"])},
)
_rights = _optional({}, configure=names.map(escape), write=st.just("^jobs$"), read=st.just(".*"))
# An address at which nobody listens: what is declared must not begin to move messages.
_NOWHERE = "amqp://user:pa%2Fss@127.0.0.1:1/v"
_shovel = _optional(
    {"src_uri": _NOWHERE, "src_queue": "a", "dest_uri": [_NOWHERE, "amqp://"], "dest_queue": "b"},
    ack_mode=st.sampled_from(["on-confirm", "on-publish"]),
    reconnect_delay=st.sampled_from(["1h", "2h30m"]),
    src_prefetch_count=st.integers(1, 100),
    src_delete_after=st.sampled_from(["never", 7]),
    dest_add_forward_headers=st.booleans(),
    dest_publish_properties=st.just({"delivery_mode": 2}),
    protected=st.just(True),
)
_upstream = _optional(
    {"uri": _NOWHERE},
    expires=_long,
    message_ttl=_durations,
    reconnect_delay=st.just("90s"),
    max_hops=st.integers(1, 3),
    trust_user_id=st.booleans(),
    ack_mode=st.just("on-confirm"),
    queue_type=st.sampled_from(["classic", "quorum"]),
)


@st.composite
def whole_documents(
    draw: st.DrawFn, *, prefix: str = "u-", federation: bool = True, largest: int = 5
) -> dict[str, Any]:
    """Draw the data of a topology file without errors.

    Args:
        prefix: of the names of users and global parameters, which all virtual hosts share.
        federation: whether with federation, for which RabbitMQ needs a plugin.
        largest: how many there are of a kind at most.
    """
    vhost = draw(
        _optional(
            {"name": "whole"},
            default_queue_type=st.sampled_from(["quorum", "classic"]),
            description=_texts,
            tags=st.lists(st.sampled_from(["a", "b c", "ž"]), unique=True, max_size=2),
        )
    )
    upstreams = draw(st.dictionaries(names, _upstream, max_size=2)) if federation else {}
    federated: dict[str, Any] = {}
    if upstreams:
        federated = {"federation_upstream": st.sampled_from(sorted(upstreams))}
    exchange_names = draw(st.lists(names, max_size=largest, unique=True))
    any_exchange = st.sampled_from(["amq.topic", "amq.headers", *exchange_names])
    exchanges = {
        name: draw(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["topic", "direct", "fanout", "headers"])},
                optional={
                    "durable": st.booleans(),
                    "auto_delete": st.just(False),
                    "internal": st.booleans(),
                    "alternate_exchange": any_exchange,
                    "arguments": _own,
                    "protected": st.just(True),
                    **federated,
                },
            )
        )
        for name in exchange_names
    }
    queue = st.one_of(
        _quorum(any_exchange, protected=st.just(True), **federated),
        _classic(any_exchange, **federated),
        _stream,
    )
    queues = draw(st.dictionaries(names, queue, max_size=largest))
    headers = st.sampled_from([{}, {"x-match": "all", "k/~": 1}, {"x-match": "any", "a b": "ž"}])
    binding = st.fixed_dictionaries(
        {"exchange": any_exchange}, optional={"routing_key": names, "arguments": headers}
    )
    # Every sign in a key or with arguments, but not ~ with both: RabbitMQ's list then fails.
    bindings = st.lists(
        binding.filter(lambda b: not (b.get("arguments") and "~" in b.get("routing_key", ""))),
        max_size=3,
        unique_by=lambda b: (b["exchange"], b.get("routing_key", ""), str(b.get("arguments", {}))),
    )
    for each in (*queues.values(), *exchanges.values()):
        each["bindings"] = draw(bindings)
    priorities = iter(draw(st.permutations(range(10))))
    policies = {
        name: {**draw(_policy), "priority": next(priorities)}
        for name in draw(st.lists(names, max_size=3, unique=True))
    }
    operator_policies = {
        name: {**draw(_operator_policy), "priority": next(priorities)}
        for name in draw(st.lists(names, max_size=2, unique=True))
    }
    user = st.fixed_dictionaries(
        {"password": st.just(f"${{{PASSWORD_VARIABLE}}}"), "permissions": _rights},
        optional={
            "tags": st.lists(st.sampled_from(["management", "monitoring"]), unique=True),
            "topic_permissions": st.dictionaries(
                any_exchange, st.just({"write": "^a\\.", "read": "^$"}), max_size=1
            ),
            "limits": st.sampled_from([{"max_connections": 7}, {"max_channels": 9}]),
            "protected": st.just(True),
        },
    )
    users = {
        f"{prefix}{name}": draw(user) for name in draw(st.lists(names, max_size=2, unique=True))
    }
    document = {
        **_versions,
        "name": "t",
        "vhost": vhost,
        "limits": draw(_optional({}, max_connections=_counts, max_queues=st.just(100_000))),
        "users": users,
        "exchanges": exchanges,
        "queues": queues,
        "policies": policies,
        "operator_policies": operator_policies,
        "shovels": draw(st.dictionaries(names, _shovel, max_size=1)),
        "federation": {
            "upstreams": upstreams,
            "upstream_sets": {
                "set": [{"upstream": name.replace("${", "$${")} for name in upstreams]
            }
            if upstreams
            else {},
        },
        # Beside plugins' components RabbitMQ takes one that people may set.
        "parameters": {
            "imported_definition_hash_value": draw(st.dictionaries(names, _texts, max_size=1))
        },
        "global_parameters": {
            f"{prefix}{name}": draw(_json) for name in draw(st.lists(names, max_size=1))
        },
    }
    return {key: value for key, value in document.items() if value != {}}
