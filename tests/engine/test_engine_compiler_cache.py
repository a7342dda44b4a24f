from __future__ import annotations

import os
from pathlib import Path

import pytest

from txlplan.engine.compiler_cache import keep_compiled_code


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the user names as cache directory; torch has been told nothing yet, nor is it after the test."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "put back")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_compiled_code_is_kept_where_the_user_keeps_what_may_go(chosen: Path) -> None:
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(chosen / "txlplan" / "compiled")
    assert (chosen / "txlplan" / "compiled").is_dir()


def test_torch_chooses_where_no_directory_can_be_made(chosen: Path) -> None:
    chosen.write_text("a file")
    keep_compiled_code()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_what_the_user_told_torch_stays(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"
