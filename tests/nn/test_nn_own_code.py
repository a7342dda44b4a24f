"""Compiled code of our own is compiled once, kept, and loaded without torch's compiler, each time by a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from txlplan.nn._kept_code import keep_code, kept_code
from txlplan.nn._own_code import _made_from
from txlplan.resources import cpp_compiler

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler here: nothing is compiled")

LOAD = """
import sys
from txlplan.nn._own_code import can_compile
print(can_compile("dropout"), "torch._inductor" in sys.modules)
"""
COMPILED, FOUND, NOT_COMPILED = "True True", "True False", "False True"


@pytest.fixture
def kept(home: Path) -> Path:
    """Where libraries are kept; none is yet. What torch keeps lies elsewhere."""
    return home / "xdg_cache_home" / "txlplan" / "own_code"


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True)


def loaded() -> str:
    return finished(start())


def finished(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=120)
    return said.strip()


def test_what_was_compiled_is_loaded_without_torchs_compiler(kept):
    assert [loaded(), loaded()] == [COMPILED, FOUND]
    assert len(list(kept.iterdir())) == 1


def cut(library: Path) -> None:
    library.write_bytes(library.read_bytes()[:-1000])


def made_from_other_code(library: Path) -> None:
    name, made_from, contents = library.stem.split("-")
    library.rename(library.with_name(f"{name}-{made_from[::-1]}-{contents}.so"))


def made_for_another_machine(library: Path) -> None:
    """Whole, and nothing that can be loaded."""
    name, made_from, _ = library.stem.split("-")
    library.unlink()
    library.with_name(f"{name}-{made_from}-e3b0c44298fc1c14.so").write_bytes(b"")


def test_a_library_that_is_not_what_is_wanted_is_compiled_again(kept):
    loaded()
    (library,) = kept.iterdir()
    whole = library.read_bytes()
    for spoil in (cut, made_from_other_code, made_for_another_machine):
        spoil(library)
        assert loaded() == COMPILED
        assert library.read_bytes() == whole
    assert loaded() == FOUND


def test_processes_that_compile_at_once_leave_one_library(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "of-torch"))
    processes = [start() for _ in range(2)]
    assert [finished(each) for each in processes] == [COMPILED] * 2
    assert len(list(kept.iterdir())) == 1
    assert loaded() == FOUND


def test_a_directory_that_cannot_be_written_is_done_without(kept):
    kept.parent.mkdir(parents=True)
    kept.write_text("no directory", encoding="utf-8")
    assert [loaded(), loaded()] == [COMPILED] * 2


def test_code_of_another_compiler_is_not_loaded(kept, monkeypatch):
    loaded()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert loaded() == NOT_COMPILED


@pytest.mark.parametrize("told", ["TORCHINDUCTOR_CPP_MARCH", "ATEN_CPU_CAPABILITY"])
def test_another_cpu_that_torch_is_told_to_compile_for_has_code_of_its_own(told, monkeypatch):
    monkeypatch.delenv(told, raising=False)
    before = _made_from("code")
    monkeypatch.setenv(told, "other")
    assert _made_from("code") != before


def as_if_unused_for_long(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (0, 0))


def test_what_was_not_used_for_long_is_removed_when_something_is_kept(kept):
    loaded()
    (used,) = kept.iterdir()
    name, made_from, contents = used.stem.split("-")
    unused, half = kept / f"{name}-{made_from[::-1]}-{contents}.so", kept / f".{used.name}.partial"
    for path in (unused, half):
        path.write_bytes(used.read_bytes())
    as_if_unused_for_long(used, unused, half)
    assert loaded() == FOUND
    assert {used, unused, half} == set(kept.iterdir()), "nothing new is kept"
    keep_code("other", "origin", used)
    assert sorted(path.name.partition("-")[0] for path in kept.iterdir()) == [name, "other"]
    assert used.exists(), "it was used since"


IN_USE = """
import torch
from txlplan.nn._dropout_code import compiled_mask
from txlplan.nn._own_code import library
library("dropout")
input("loaded")
print(compiled_mask((1 << 20,), torch.tensor(1), 0.5).float().mean().item())
"""


def test_a_process_that_has_loaded_what_is_removed_goes_on(kept):
    loaded()
    (library,) = kept.iterdir()
    with subprocess.Popen([sys.executable, "-c", IN_USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(len("loaded")) == "loaded"
        as_if_unused_for_long(library)
        keep_code("other", "origin", library)
        assert not library.exists()
        said, _ = process.communicate("go on\n", timeout=120)
    assert float(said) == pytest.approx(0.5, abs=0.01)
    assert process.returncode == 0


def test_a_user_without_a_home_keeps_no_code(monkeypatch, tmp_path):
    def no_home(*_: str, **__: bool) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(platformdirs, "user_cache_dir", no_home)
    library = tmp_path / "library.so"
    library.write_bytes(b"code")
    keep_code("dropout", "origin", library)
    assert kept_code("dropout", "origin") is None
