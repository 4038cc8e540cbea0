"""The direction of imports, and which libraries are spoken to where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("broker", "producers", "consumers", "rabbitry")
FORBIDDEN = {
    "broker": {"producers", "consumers", "rabbitry"},
    "producers": {"consumers", "rabbitry"},
    "consumers": {"producers", "rabbitry"},
    "rabbitry": set(),
}
# Pure: no I/O, and nothing imported that does any.
PURE = (
    "broker/topology/model.py",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "broker/topology/lint").glob("*.py")),
    "broker/topology/route.py",
    "broker/topology/explain.py",
    "broker/topology/diagram.py",
    "broker/topology/effective.py",
    "broker/topology/matching.py",
    "broker/topology/retry.py",
    "broker/topology/compile.py",
    "broker/topology/plan.py",
    "broker/message.py",
    "broker/case_file.py",
    "broker/contracts.py",
    "broker/recurrence.py",
    "consumers/schedule/due.py",
    "consumers/schedule/marks.py",
)
WITH_IO = {"httpx", "amqp", "pika", "subprocess", "requests", "sqlite3"}


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module, and whether it is only for types or within a function."""
    tree = ast.parse(path.read_text())
    for_types: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            for_types.update(inner for child in node.body for inner in ast.walk(child))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in for_types
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node in for_types


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_in_one_direction(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for module, _ in imports_of(path):
        assert module.partition(".")[0] not in FORBIDDEN[room], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_library_is_spoken_to_in_its_place(path: Path) -> None:
    for module, _ in imports_of(path):
        library = module.partition(".")[0]
        if library == "click":
            assert "cli" in (path.stem, path.parent.name), f"{name_of(path)} imports click"
        if library == "httpx":
            assert name_of(path) == "broker/management.py", f"{name_of(path)} imports httpx"
        if library in ("celery", "billiard"):
            assert path.relative_to(ROOT).parts[0] == "consumers", f"{name_of(path)}: {module}"


@pytest.mark.parametrize("name", PURE)
def test_the_pure_modules_import_nothing_that_does_io(name: str) -> None:
    for module, aside in imports_of(ROOT / name):
        if not aside:
            assert module.partition(".")[0] not in WITH_IO
            assert module not in ("broker.management", "broker.connection", "broker.topology.load")


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_every_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_public_names_are_these() -> None:
    import rabbitry

    assert sorted(rabbitry.__all__) == sorted(
        [
            *("Topology", "Publisher", "Caller", "Job", "job", "current_job", "Receipt", "Routed"),
            *("Accepted", "Progress", "CallCancelled", "Cancelled", "detached"),
            *("current_jobs", "GiveUp", "TryAgain", "Results", "NoResult", "ResultsUnavailable"),
            *("AccessRefused", "BrokerUnavailable", "CallFailed", "CallTimeout"),
            *("InvalidArguments", "InvalidInput", "InvalidMessage", "InvalidReply"),
            *("MessageTooLarge", "OutcomeUnknown", "PublishFailed", "RabbitryError", "Rejected"),
            *("RemoteError", "TopologyError", "UnknownJob", "Unreachable", "Unroutable"),
            "VirtualHostMissing",
        ]
    )
    for name in rabbitry.__all__:
        assert getattr(rabbitry, name) is not None
