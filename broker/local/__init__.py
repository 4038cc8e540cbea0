"""A private RabbitMQ for development, the demo and the tests.

It never touches a RabbitMQ that is already there: ports, cookie, data and log are its own, and
everything listens on loopback. `up` takes the first of three ways that this machine offers.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from dataclasses import replace
from pathlib import Path

from broker.errors import LocalNodeError, RabbitryError
from broker.local.ports import choose_ports
from broker.local.state import (
    NEWEST,
    SERIES,
    WAYS,
    Home,
    Node,
    Series,
    State,
    WayName,
    load,
    private_url,
    save,
)
from broker.local.way import Say, Unavailable, Way

__all__ = [
    "Home",
    "State",
    "down",
    "fetch_root",
    "follow_command",
    "logs",
    "private_url",
    "status",
    "up",
]

READY_S = 90.0
USER = "rabbitry"


def up(
    home: Home | None = None,
    *,
    way: str | None = None,
    series: Series | None = None,
    say: Say | None = None,
) -> State:
    """Start the private RabbitMQ where it does not run, and wait until it is ready.

    Args:
        home: where it lives; by default as the environment names it.
        way: ``engine``, ``path`` or ``debian``, to take this way and no other.
        series: of RabbitMQ, such as ``4.0``; by default that of the last time, else the newest
            that the way offers. Each has data of its own.
        say: told what is being done.

    Raises:
        LocalNodeError: no way can be taken, or RabbitMQ does not start.
    """
    home, say = home or Home.default(), say or _silent
    if way is not None and way not in WAYS:
        raise LocalNodeError(f"there is no way {way!r}; there are: {', '.join(WAYS)}")
    with home.locked(say):
        state = load(home)
        running = state is not None and state.phase == "running"
        if state is not None and running and way in (None, state.way) and state.is_of(series):
            if _answers(state) and _way_of(state).running(home, state.nodes[0]):
                return state
            say("the private RabbitMQ ended or does not answer; starting it anew")
        if series is None and state is not None:
            series = state.series
        name, chosen = _choose(home, state, way, series, say)
        if state is not None and running and name != state.way:
            say(f"ending the private RabbitMQ of way {state.way}; its data stays for that way")
        elif state is not None and running and not state.is_of(series):
            say(f"ending the private RabbitMQ {state.version}; its data stays for that series")
        _stop_all(home)
        state = _begin(home, state, name, series)
        say(f"starting RabbitMQ ({name}{f', {series}' if series else ''})")
        try:
            node = chosen.start(home, state, state.nodes[0])
            state = replace(state, nodes=(node,))
            save(home, state)
            version = _wait_ready(home, state, chosen)
        except BaseException:
            # Also on Ctrl-C: nothing half-started stays behind.
            chosen.stop(home, state.nodes[0])
            save(home, _stopped(state))
            raise
        state = replace(state, phase="running", version=version)
        save(home, state)
        return state


def down(home: Home | None = None, *, purge: bool = False, say: Say | None = None) -> bool:
    """End what `up` started, and nothing else.

    Args:
        home: where it lives.
        purge: remove its data, settings and log too; a fetched root folder stays.
        say: told what is being done.

    Returns:
        Whether there was anything to end or remove.
    """
    home, say = home or Home.default(), say or _silent
    with home.locked(say):
        existed = _stop_all(home)
        try:
            state = load(home)
        except LocalNodeError:
            if not purge:
                raise
            state = None
        if purge:
            existed = existed or home.node.exists()
            for name in WAYS:
                for series in SERIES:
                    if home.folder(name, series).exists():
                        _way(name, series).purge(home)
            if home.node.exists():
                shutil.rmtree(home.node)
        elif state is not None and state.phase != "stopped":
            save(home, _stopped(state))
        return existed


def status(home: Home | None = None) -> State | None:
    """Return the private RabbitMQ if it runs, else None."""
    home = home or Home.default()
    state = load(home)
    if state is None or state.phase != "running":
        return None
    return state if _way_of(state).running(home, state.nodes[0]) else None


def logs(home: Home | None = None, *, lines: int = 100) -> str:
    """Return the last lines of the log, also of a node that has ended.

    Raises:
        LocalNodeError: there never was one.
    """
    home = home or Home.default()
    state = load(home)
    if state is None:
        raise LocalNodeError("there is no private RabbitMQ; `rabbitry broker up` starts one")
    return _way_of(state).log(home, lines=lines)


def follow_command(home: Home | None = None, *, lines: int = 100) -> list[str]:
    """Return the command that shows the end of the log and then what is added to it.

    Raises:
        LocalNodeError: there never was one.
    """
    home = home or Home.default()
    state = load(home)
    if state is None:
        raise LocalNodeError("there is no private RabbitMQ; `rabbitry broker up` starts one")
    return _way_of(state).follow(home, state.nodes[0], lines=lines)


def fetch_root(
    home: Home | None = None, *, series: Series = NEWEST, say: Say | None = None
) -> Path:
    """Fetch RabbitMQ from Debian's packages where that has not been done; return the folder.

    Args:
        home: where it lives; by default as the environment names it.
        series: of RabbitMQ.
        say: told what is being done.

    Raises:
        LocalNodeError: it cannot be fetched here.
    """
    from broker.local.debian import fetch

    try:
        return fetch(home or Home.default(), say or _silent, series)
    except Unavailable as exc:
        raise LocalNodeError(f"RabbitMQ cannot be fetched from Debian's packages: {exc}") from exc


# -- starting -------------------------------------------------------------------------


def _way(name: WayName, series: Series | None = None) -> Way:
    # Each is imported only when it is taken: `private_url` is asked by nearly every command.
    if name == "engine":
        from broker.local.engine import Engine

        return Engine(series)
    if name == "path":
        from broker.local.path import OnPath

        return OnPath(series)
    from broker.local.debian import Debian

    return Debian(series)


def _way_of(state: State) -> Way:
    return _way(state.way, state.series)


def _choose(
    home: Home, state: State | None, forced: str | None, series: Series | None, say: Say
) -> tuple[WayName, Way]:
    # Data lies with the way that made it: that one is tried first.
    order = [name for name in WAYS if forced in (None, name)]
    if state is not None and state.way in order:
        order = [state.way, *(name for name in order if name != state.way)]
    reasons = []
    for name in order:
        way = _way(name, series)
        try:
            way.prepare(home, say)
        except Unavailable as exc:
            reasons.append(f"{name}: {exc}")
            say(f"not by way of {name}: {exc}")
        else:
            return name, way
    from broker.local.debian import RELEASES

    wanted = f"RabbitMQ {series}" if series else "RabbitMQ"
    server = f"of {series}" if series else "of at least 4.0"
    third = (
        f"run this as root on Debian or Ubuntu, where it fetches RabbitMQ {series or NEWEST} by"
        " itself"
        if (series or NEWEST) in RELEASES
        else f"take one that Debian has packages of ({', '.join(RELEASES)})"
    )
    raise LocalNodeError(
        f"no {wanted} can be started here ({'; '.join(reasons)}). Three remedies: start Docker or"
        f" Podman; put a rabbitmq-server {server} on the PATH; or {third}"
    )


def _begin(home: Home, state: State | None, way: WayName, series: Series | None) -> State:
    kept = state.nodes[0].ports if state is not None else None
    node = Node(name="rabbitry@localhost", ports=choose_ports(home.path, kept=kept))
    state = State(
        phase="starting",
        way=way,
        # The password of the data, which keeps its users.
        user=state.user if state is not None else USER,
        password=state.password if state is not None else secrets.token_urlsafe(18),
        nodes=(node,),
        series=series,
    )
    save(home, state)
    return state


def _stopped(state: State) -> State:
    nodes = tuple(Node(name=node.name, ports=node.ports) for node in state.nodes)
    return replace(state, phase="stopped", nodes=nodes)


def _stop_all(home: Home) -> bool:
    """End every trace of a node, whichever way it was started and whatever is recorded."""
    existed, series = False, None
    with contextlib.suppress(LocalNodeError):
        state = load(home)
        series = state.series if state is not None else None
    for name in WAYS:
        existed = _way(name, series).stop(home, None) or existed
    return existed


def _wait_ready(home: Home, state: State, way: Way) -> str:
    from broker.connection import Address, connect
    from broker.management import Management

    address = Address.parse(state.url, management_url=state.management_url)
    deadline = time.monotonic() + READY_S
    trouble: Exception | None = None
    while time.monotonic() < deadline:
        if not way.running(home, state.nodes[0]):
            break
        try:
            with Management(address, timeout_s=5) as management:
                version = management.version()
            connect(address, timeout_s=5).release()
            return version
        except RabbitryError as exc:
            trouble = exc
        time.sleep(0.1)
    log = way.log(home, lines=15)
    what = "ended" if not way.running(home, state.nodes[0]) else f"is not ready in {READY_S:g} s"
    raise LocalNodeError(
        f"the private RabbitMQ {what}{f' ({trouble})' if trouble else ''};"
        f" `rabbitry broker logs` shows more. The end of its log:\n{log}"
    )


def _answers(state: State) -> bool:
    from broker.connection import Address, connect

    try:
        connect(Address.parse(state.url), timeout_s=5).release()
    except RabbitryError:
        return False
    return True


def _silent(text: str, fraction: float | None = None, /) -> None:
    """Say nothing."""
