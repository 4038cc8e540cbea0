"""What is built works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, tmp_path: Path, *code: str) -> subprocess.CompletedProcess[str]:
    # -S and -I would hide the libraries; the folder alone must not lead to the checkout.
    env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *code], cwd=tmp_path, env=env, capture_output=True, text=True
    )


def test_the_wheel_holds_the_rooms_their_types_and_the_nodes_settings(
    installed: Path, tmp_path: Path
) -> None:
    for room in ("rabbitry", "broker", "producers", "consumers"):
        assert (installed / room / "py.typed").exists()
    assert not (installed / "tests").exists()
    program = (
        "import broker.local.settings as settings; "
        "print(settings.__file__, settings.shared_file('rabbitmq.conf'))"
    )
    done = run(installed, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    module, conf = done.stdout.split()
    assert Path(module).is_relative_to(installed)
    assert Path(conf).is_relative_to(installed)
    assert "transient_nonexcl_queues = false" in Path(conf).read_text()


def test_the_public_names_and_the_command_come_from_the_wheel(
    installed: Path, tmp_path: Path
) -> None:
    names = (
        "import rabbitry; print(rabbitry.__file__); "
        "[getattr(rabbitry, name) for name in rabbitry.__all__]"
    )
    done = run(installed, tmp_path, "-c", names)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)
    assert run(installed, tmp_path, "-m", "rabbitry", "--help").returncode == 0
