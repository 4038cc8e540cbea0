"""Topologies for tests: written out, or generated."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from broker.topology import Topology
from broker.topology.values import check_name


def topology(**sections: Any) -> Topology:
    """Return a topology named ``t`` with these sections."""
    return Topology.model_validate({"version": 1, "name": "t", **sections})


def _allowed(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True


# All that people put into names: dots, slashes, signs of regular expressions and URLs, letters.
names = st.text(
    st.sampled_from("ab.-_/~%#?@ $^|()[]{}*+\\&='\"žé漢🐇"), min_size=1, max_size=12
).filter(_allowed)

_durations = st.sampled_from(["1s", "250ms", "5m", "2h", "14d", "1h30m"])
_counts = st.integers(min_value=1, max_value=2**31)
_dead_letter = st.fixed_dictionaries(
    {"exchange": st.just("amq.topic")}, optional={"routing_key": names}
)
_quorum = st.fixed_dictionaries(
    {"type": st.just("quorum")},
    optional={
        "retry": st.fixed_dictionaries(
            {"delay": st.just("1s")},
            optional={"max_delay": st.just("1m"), "limit": st.integers(0, 50)},
        ),
        "dead_letter": _dead_letter,
        "single_active_consumer": st.booleans(),
        "consumer_timeout": _durations,
        "overflow": st.just("reject-publish"),
        "max_length": _counts,
        "message_ttl": _durations,
        "arguments": st.dictionaries(st.just("x-own"), st.integers(0, 9)),
    },
)
_classic = st.fixed_dictionaries(
    {"type": st.just("classic")},
    optional={
        "dead_letter": _dead_letter,
        "auto_delete": st.booleans(),
        "max_priority": st.integers(1, 10),
        "max_length_bytes": st.sampled_from(["1MiB", 1000]),
        "overflow": st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"]),
        "message_ttl": _durations,
        "expires": _durations,
    },
)
_stream = st.fixed_dictionaries(
    {"type": st.just("stream")},
    optional={"max_age": st.sampled_from(["1d", "90s"]), "max_length_bytes": _counts},
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the data of a topology file without errors."""
    exchanges = draw(
        st.dictionaries(
            names,
            st.fixed_dictionaries(
                {"type": st.sampled_from(["topic", "direct", "fanout", "headers"])},
                optional={
                    "durable": st.booleans(),
                    "internal": st.booleans(),
                    "alternate_exchange": st.just("amq.fanout"),
                    "arguments": st.dictionaries(st.just("x-own"), st.booleans()),
                },
            ),
            max_size=4,
        )
    )
    binding = st.fixed_dictionaries(
        {"exchange": st.sampled_from(["amq.topic", *exchanges])},
        optional={"routing_key": names},
    )
    bindings = st.lists(
        binding, max_size=3, unique_by=lambda b: (b["exchange"], b.get("routing_key"))
    )
    queues = draw(st.dictionaries(names, st.one_of(_quorum, _classic, _stream), max_size=6))
    for each in (*queues.values(), *exchanges.values()):
        each["bindings"] = draw(bindings)
    return {"version": 1, "name": "t", "exchanges": exchanges, "queues": queues}


def topologies() -> st.SearchStrategy[Topology]:
    """Generate topologies without errors."""
    return documents().map(Topology.model_validate)
