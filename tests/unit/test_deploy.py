"""The image that is made from a root folder: what goes in, what stays out."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy" / "rabbitmq"


def import_image(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DEPLOY / "import-image"), *map(str, args)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder like a root that a node has run in."""
    root = tmp_path / "root"
    for name in (
        "usr/lib/rabbitmq/bin/rabbitmq-server",
        "etc/passwd",
        "etc/rabbitmq/rabbitmq-env.conf",
        "proc/version",
        "var/lib/rabbitmq/.erlang.cookie",
        "var/lib/rabbitmq/mnesia/data",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "usr/lib/rabbitmq/bin/rabbitmq-server").chmod(0o755)
    return root


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A client that keeps what it is given: arguments and archive."""
    client = tmp_path / "docker"
    client.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\ncat > {tmp_path}/tar\n')
    client.chmod(0o755)
    return client


def test_an_image_holds_the_root_and_our_settings_but_no_data(root: Path, engine: Path) -> None:
    made = import_image(root, "some/name:1", DOCKER=str(engine))
    assert made.returncode == 0, made.stderr
    assert made.stdout == "some/name:1\n"
    assert "some/name:1" in (engine.parent / "words").read_text().splitlines()
    with tarfile.open(engine.parent / "tar") as archive:
        names = [name.removeprefix("./") for name in archive.getnames()]
        settings = archive.extractfile("etc/rabbitmq/rabbitmq.conf")
        assert settings is not None
        assert settings.read() == (DEPLOY / "rabbitmq.conf").read_bytes()
    # The engine refuses an archive that names a file twice.
    assert len(names) == len(set(names))
    assert {"usr/lib/rabbitmq/bin/rabbitmq-server", "etc/passwd"} <= set(names)
    assert {"etc/rabbitmq/enabled_plugins", "etc/rabbitmq/conf.d/10-listeners.conf"} <= set(names)
    assert {"proc", "var/lib/rabbitmq"} <= set(names)
    assert not [
        name
        for name in names
        if name.startswith(("proc/", "var/lib/rabbitmq/", "etc/rabbitmq/rabbitmq-env"))
    ]


def test_making_an_image_leaves_the_root_as_it_was(root: Path, engine: Path) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in root.rglob("*"))
    import_image(root, DOCKER=str(engine))
    assert sorted((path, path.lstat().st_mtime_ns) for path in root.rglob("*")) == before


def test_a_folder_without_rabbitmq_makes_no_image(tmp_path: Path) -> None:
    refused = import_image(tmp_path)
    assert refused.returncode == 1
    assert "holds no RabbitMQ; `rabbitry broker fetch` prints a root folder" in refused.stderr


@pytest.mark.parametrize("words", [(), ("--help",), ("a", "b", "c")])
def test_wrong_words_are_answered_by_the_usage(words: tuple[str, ...]) -> None:
    refused = import_image(*words)
    assert refused.returncode == 2
    assert refused.stderr.startswith("usage: import-image ROOT [NAME]")
