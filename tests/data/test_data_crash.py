"""kill -9 while data is prepared: what is left is never taken for whole, and the next run ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from txlplan.data import open_dataset
from txlplan.errors import DataError

PREPARE = """
import sys
from pathlib import Path
from txlplan.data import Progress, Settings, _parallel, _parts, prepare

class Told(Progress):
    def begin(self, step, total_bytes):
        print(step, flush=True)

    def picked_up(self, step):
        print("picked up", step, flush=True)

_parts.PART_BYTES, _parallel.WORTH_A_POOL_BYTES = 256 << 10, 0
prepare([sys.argv[1]], Path(sys.argv[2]), settings=Settings(vocabulary="words"), processes=2, progress=Told())
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"word{number % 997} is number {number}\n" for number in range(80_000)))
    return path


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run([sys.executable, "-c", PREPARE, str(text), str(output)], check=True, stdout=subprocess.DEVNULL)
    return output


@pytest.mark.parametrize(
    ("left", "picked_up"),
    [
        ("split/train.txt", []),
        ("split/step.json", ["split"]),
        ("vocabulary/step.json", ["split", "vocabulary"]),
        ("serialise/train/000003.tokens", ["split", "vocabulary"]),
        ("merge", ["split", "vocabulary"]),
    ],
)
def test_killed_at_any_step_the_next_run_ends_the_same(
    left: str, picked_up: list[str], text: Path, whole: Path, tmp_path: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", PREPARE, str(text), str(output)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (tmp_path / ".out.partial" / left).exists() and not output.exists():
        assert victim.poll() is None or output.exists()
        time.sleep(0.001)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    if not output.exists():
        with pytest.raises(DataError):
            open_dataset(output)
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert not told or set(picked_up) <= {line.removeprefix("picked up ") for line in told.splitlines() if "picked" in line}
    open_dataset(output, verify=True)
    assert tree(output) == tree(whole)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_workers_end_with_their_killed_parent(text: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREPARE, str(text), str(tmp_path / "out")]
    victim = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert victim.stdout
    for line in victim.stdout:
        if line == "serialise\n":
            break
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(victim.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("a worker outlived its parent by five seconds")
