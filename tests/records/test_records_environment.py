"""Ids sort by time; the environment tells what it can and never fails."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime

from txlplan import records


def test_ids_are_unique_and_sort_by_time():
    ids = [records.new_id() for _ in range(500)]
    assert len(set(ids)) == 500
    assert [name[:21] for name in ids] == sorted(name[:21] for name in ids)


def test_now_is_iso_utc():
    moment = datetime.fromisoformat(records.now())
    assert moment.tzinfo == UTC
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 5


def test_environment_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = records.environment()
    assert found.python == platform.python_version()
    assert (found.git_commit, found.git_dirty) == (None, None)


def test_environment_in_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    assert records.environment().git_dirty is False
    (tmp_path / "new.txt").write_text("x")
    found = records.environment()
    assert found.git_dirty is True
    assert len(found.git_commit) == 40


def test_environment_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert records.environment().git_commit is None


def test_environment_imports_no_torch():
    script = (
        "import sys; from txlplan.records import environment; assert environment().torch; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
