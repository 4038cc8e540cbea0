"""A real RabbitMQ for the run, a fresh virtual host for each test, the command as a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from broker.local.state import Home
from broker.management import Management
from tests.commands import Commands
from tests.rabbitmq import NoRabbitMQ, RabbitMQ, find, home_of_run, is_asked_for
from tests.redis import NoRedis, Redis, running

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "tests" / "unit"

# Enough for every commit; `make soak` looks longer (HYPOTHESIS_PROFILE=thorough).
settings.register_profile("quick", max_examples=30)
settings.register_profile("thorough", max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# What takes long begins first, and the shortest fills the end: several processes end together.
LONGEST_FIRST = ("faults", "end_to_end", "integration", "unit")

FOUND = pytest.StashKey[list[RabbitMQ]]()
MISSING = pytest.StashKey[str]()

FOUND_KEY, MISSING_KEY = "rabbitmq", "no_rabbitmq"

EXIT_NO_RABBITMQ = 4

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Find RabbitMQ before the first test, so that the head of the report can name it."""
    config = session.config
    home = home_of_run(Path(tempfile.mkdtemp(prefix="rabbitry-tests-")))
    # What the developer works with is none of the tests' business, but fetched roots are
    # shared: they are large and never written to.
    for name in ("RABBITRY_URL", "RABBITRY_MANAGEMENT_URL", "RABBITRY_TOPOLOGY"):
        os.environ.pop(name, None)
    os.environ["RABBITRY_HOME"] = str(home.path)
    os.environ["RABBITRY_ROOTS"] = str(home.roots)

    ending = contextlib.ExitStack()
    config.add_cleanup(ending.close)
    ending.callback(shutil.rmtree, home.path, ignore_errors=True)
    # What is started here must not outlive a run that is told to stop.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = getattr(config, "workerinput", None)
    if given is not None:
        # One of several processes: the first has found a RabbitMQ for each.
        if given[FOUND_KEY] is None:
            config.stash[MISSING] = given[MISSING_KEY]
        else:
            config.stash[FOUND] = [RabbitMQ(**given[FOUND_KEY])]
        return
    if config.option.collectonly:
        config.stash[MISSING] = "none looked for: tests are only collected"
        return
    if only_unit_tests(config):
        config.stash[MISSING] = "none looked for: only tests/unit is asked for"
        return
    try:
        config.stash[FOUND] = found = []
        # Two processes do not share one: tests stop, fill and list what they have.
        for number in range(config.getoption("numprocesses", None) or 1):
            found.append(find(Home(home.path / str(number), home.roots), ending, say))
    except NoRabbitMQ as exc:
        if is_asked_for():
            pytest.exit(str(exc), returncode=EXIT_NO_RABBITMQ)
        del config.stash[FOUND]
        config.stash[MISSING] = str(exc)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each of several processes its RabbitMQ."""
    found = node.config.stash.get(FOUND, None)
    number = int(node.gateway.id.removeprefix("gw")) % len(found or [0])
    node.workerinput[FOUND_KEY] = None if found is None else asdict(found[number])
    node.workerinput[MISSING_KEY] = node.config.stash.get(MISSING, "none")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order what several processes share by how long it takes; one process keeps the order."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else 0

    if hasattr(config, "workerinput"):
        items.sort(key=rank)


def say(text: str, fraction: float | None = None, /) -> None:
    """Tell what takes its time; how far a long step is, is for terminals."""
    if fraction is None:
        sys.stderr.write(f"{text}\n")


def pytest_report_header(config: pytest.Config) -> str:
    """Say which RabbitMQ the tests run against."""
    found = config.stash.get(FOUND, None)
    if found is None:
        return f"RabbitMQ: {config.stash.get(MISSING, 'none')}"
    return "\n".join(
        f"RabbitMQ: {each.version} ({each.way}), management {each.management_url}" for each in found
    )


def only_unit_tests(config: pytest.Config) -> bool:
    """Say whether every path that is asked for lies in tests/unit."""
    folder = config.invocation_params.dir
    paths = [(folder / argument.partition("::")[0]).resolve() for argument in config.args]
    return all(path.is_relative_to(UNIT) for path in paths)


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> RabbitMQ:
    """The RabbitMQ of this run."""
    stash = request.config.stash
    if FOUND not in stash:
        pytest.skip(stash[MISSING])
    return stash[FOUND][0]


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A fresh virtual host, gone after the test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    with Management(rabbitmq.address()) as management:
        management.put("vhosts", name, body={"default_queue_type": "quorum"})
        yield name
        management.delete("vhosts", name)
        # What apply has recorded lives beside the virtual hosts.
        for each in management.get("global-parameters"):
            value = each["value"]
            if isinstance(value, dict) and value.get("vhost") == name:
                management.delete("global-parameters", each["name"])


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis of this run, with a password."""
    with contextlib.ExitStack() as ending:
        try:
            server = ending.enter_context(running())
        except NoRedis as exc:
            if is_asked_for():
                pytest.fail(str(exc))
            pytest.skip(str(exc))
        yield server


@pytest.fixture
def env(rabbitmq: RabbitMQ, vhost: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a command: this RabbitMQ, this virtual host, no private node."""
    return {
        **os.environ,
        # The installed command, also where the virtual environment is not activated.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "RABBITRY_URL": rabbitmq.url(vhost),
        "RABBITRY_MANAGEMENT_URL": rabbitmq.management_url,
        "RABBITRY_HOME": str(tmp_path_factory.mktemp("home")),
    }


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """What runs commands for less than a new Python costs."""
    with Commands(os.environ) as commands:
        yield commands


@pytest.fixture
def rabbitry(env: dict[str, str], commands: Commands) -> Run:
    """Run the command `rabbitry` to its end, in the repository's folder; nobody types anything.

    Options are those of `subprocess.run`; what does not go with `commands` begins a new Python.
    """

    def run(
        *args: object, timeout_s: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        settings = {"env": env, "cwd": ROOT, "stdin": subprocess.DEVNULL, **options}
        usual = settings.keys() == {"env", "cwd", "stdin"}
        if (
            usual
            and settings.pop("stdin") == subprocess.DEVNULL
            and commands.agree(settings["env"])
        ):
            return commands.run([str(each) for each in args], timeout_s=timeout_s, **settings)
        command = [sys.executable, "-m", "rabbitry", *map(str, args)]
        settings = {"env": env, "cwd": ROOT, "capture_output": True, "text": True, **options}
        return subprocess.run(command, timeout=timeout_s, check=False, **settings)

    return run
