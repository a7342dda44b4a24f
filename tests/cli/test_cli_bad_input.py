"""Input that cannot be: exit code 2, what and where and what to do, no traceback, nothing written."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

ON = ("--model", "nvidia-wt103-base", "--system", "dgx-1")
BUYER = ("compare", "--model", "nvidia-wt103-base", "--tokens", "1e9", "--on", "dgx-1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", *ON, "--nodes", 10**9), "no machine for training has more than 200,000"),
        (("plan", *ON, "--global-batch", 10**21), "global_batch = 1000000000000000000000 must be at least 1, and at most"),
        (("plan", *ON, "-o", ""), "must be the path of a file"),
        (("plan", *ON, "--html", "a-directory"), "must be the path of a file"),
        (("plan", *ON, "-o", "a-file/plan.toml"), "cannot be written"),
        (("plan", *ON, "--stack", ""), "unknown"),
        (("plan", *ON, "--data", "a-file"), "a-file"),
        (("estimate", *ON, "--attention", "fsat"), "for '--attention': 'fsat' is not one of 'reference', 'fast', 'compiled'"),
        (("report", "--format", "pdf"), "for '--format': 'pdf' is not one of 'html', 'md', 'csv', 'json'"),
        (("estimate", *ON, "--threads", 2), "--threads 2 has no effect on"),
        (
            ("estimate", "--model", "demo-bytes", "--system", "generic-cpu", "--compile-step"),
            "no compiled step to train is known of it",
        ),
        (("estimate", *ON, "--micro-batch", 10**21), "micro_batch = 1000000000000000000000 must be at least 1, and at most"),
        (("estimate", "binary.csv"), "not UTF-8 at byte"),
        ((*BUYER[:-1], "100000000xdgx-1"), "no machine for training has more than 200,000"),
        ((*BUYER, "--device-like", "v100-sxm2-16gb", "--set", "cores=0"), "cores = 0 must be at least 1"),
        ((*BUYER, "--device-like", "v100-sxm2-16gb", "--set", "core=1"), "unknown key 'core'"),
        (("compare", "scenario.toml"), "on = 'dgx-1' must be a list"),
        (("validate", "binary.csv"), "not a CSV file in UTF-8"),
        (("validate", "published.csv", "--max-mape", "nan"), "must be more than zero, and finite"),
        (("calibrate", "binary.csv", "--system", "dgx-1"), "not a CSV file in UTF-8"),
        (("prices", "import", "binary.csv"), "not a CSV file in UTF-8"),
        (("records", "import", "cut.jsonl"), "cut.jsonl"),
        (("model", "import", "cut.toml", "--output", "made"), "no file that torch saved"),
        (("model", "import", "object.pt", "--output", "made"), "refused: it holds Python objects"),
        (("data", "prepare", "a-file", "--output", "made", "--vocabulary", ""), "vocabulary = '' is not known"),
        (("data", "prepare", "a-file", "--output", "made", "--split", ""), "split"),
        (
            ("data", "prepare", "a-file", "--output", "made", "--vocabulary", "bpe", "--vocabulary-size", 10**21),
            "less than 2^31",
        ),
        (("validate", "deepbench_gemm.csv", "--html", "made.html"), "--html has no effect"),
        (("run", "--model", "demo-bytes", "--data", "a-directory", "--split", ""), "--split is empty"),
        (("hardware", "probe", "--seconds", "1e30"), "--seconds"),
    ],
)
def test_it_is_refused(
    txlplan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-file").write_text("a line of text\n" * 40)
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    (tmp_path / "cut.jsonl").write_text('{"schema_version": 1, "id": "a')
    (tmp_path / "cut.toml").write_text("a = [1,\n")
    (tmp_path / "object.pt").write_bytes(pickle.dumps(Path("x"), protocol=2))
    (tmp_path / "scenario.toml").write_text('model = "nvidia-wt103-base"\ntokens = "1e9"\non = "dgx-1"\n')
    before = _files(tmp_path)
    result = txlplan(*arguments)
    assert result.exit_code == 2, result.stderr
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    "option", [("--micro-batch", "0"), ("--devices", "0"), ("--model", "demo-byte"), ("--precision", "fp17")]
)
def test_a_benchmark_that_cannot_be_leaves_nothing(txlplan: Any, home: Path, option: tuple[str, str]) -> None:
    result = txlplan("bench", "--model", "demo-bytes", *option)
    assert result.exit_code == 2
    assert not list(home.rglob("benches/*"))


def _files(directory: Path) -> set[Path]:
    """All but the record store, which any look at the records makes."""
    return {path for path in directory.rglob("*") if "home" not in path.parts}
