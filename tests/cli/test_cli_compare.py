"""The command compare, from options and from a scenario file."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from txlplan.hardware import systems

MODEL = (
    "n_layer = 2\nd_model = 1024\nn_head = 16\nd_head = 64\nd_inner = 4096\nvocab_size = 5000\ntgt_len = 64\nmem_len = 64\n"
    "published_batch = 1024\n"
)


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Options of a comparison that is bound by its devices."""
    (tmp_path / "small.toml").write_text(MODEL)
    return ["compare", "--model", str(tmp_path / "small.toml"), "--tokens", "1e9"]


def test_it_ranks_and_says_what_to_take(txlplan: Any, small: list[str]) -> None:
    result = txlplan(*small, "--on", "dgx-1,p3.16xlarge,1..2xp4d.24xlarge")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["candidate", "time"]
    assert lines[-1].startswith(("Rent ", "Buy "))
    assert "is the fastest of 3 with a probability of " in lines[-1]
    assert any(line.startswith("efficiency of 1 to 2 x p4d.24xlarge by devices: 8: 100%, 16: ") for line in lines)
    assert any(line.startswith("buying dgx-1 instead of renting ") for line in lines)
    assert any(line.startswith("if the run is twice as long: ") for line in lines)
    assert any("days old (2017-05-10)" in line for line in lines)
    assert "next: txlplan plan --model" in result.stderr


def test_json_has_everything(txlplan: Any, small: list[str]) -> None:
    document = txlplan(*small, "--on", "dgx-1,p3.16xlarge", "--rank-by", "cost", "--json").json
    first, second = document["candidates"]
    assert {first["system"], second["system"]} == {"dgx-1", "p3.16xlarge"}
    assert first["account"]["cost_usd"]["value"] <= second["account"]["cost_usd"]["value"]
    assert first["plan"]["micro_batch"] >= 1
    assert document["verdict"]["best"] == first["candidate"]
    assert document["assumptions"]["sources"]["pue"]
    assert [one["bought"] for one in document["break_evens"]] == ["dgx-1"]
    assert document["failed"] == []


def test_a_candidate_is_taken_once(txlplan: Any, small: list[str]) -> None:
    document = txlplan(*small, "--on", "dgx-1,,dgx-2,dgx-1", "--json").json
    assert sorted(row["system"] for row in document["candidates"]) == ["dgx-1", "dgx-2"]


def test_candidates_that_share_a_size_are_one(txlplan: Any, small: list[str]) -> None:
    on = "1..2xdgx-1,dgx-2,2..4xdgx-1,1xdgx-2,4xdgx-1,8xdgx-1"
    document = txlplan(*small, "--on", on, "--json").json
    sizes = {
        row["system"] + str(len(row["sizes"])): [size["n_nodes"] for size in row["sizes"]] for row in document["candidates"]
    }
    assert sizes == {"dgx-13": [1, 2, 4], "dgx-21": [1], "dgx-11": [8]}


def test_a_stated_price_is_used_and_is_fresh(txlplan: Any, small: list[str]) -> None:
    document = txlplan(
        *small, "--on", "p3.16xlarge,dgx-1", "--price", "p3.16xlarge=18.50/h", "--price", "dgx-1=50000 USD", "--json"
    ).json
    found = {row["system"]: row["account"] for row in document["candidates"]}
    assert found["p3.16xlarge"]["price"]["rent_usd_per_h"] == 18.5
    assert found["p3.16xlarge"]["cost_usd"]["value"] == pytest.approx(found["p3.16xlarge"]["time_s"]["value"] / 3600 * 18.5)
    assert found["dgx-1"]["price"]["purchase_usd"] == 50_000
    assert not any("days old" in text for text in document["warnings"])


def test_prices_of_every_kind_are_stated_together(txlplan: Any, small: list[str]) -> None:
    stated = ("--price", "p4d.24xlarge=18.50/h", "--price", "p4d.24xlarge=spot 7/h", "--price", "p4d.24xlarge=150000 USD")
    accounts = txlplan(*small, "--on", "p4d.24xlarge", *stated, "--json").json["candidates"][0]["accounts"]
    found = {one["way"]: (one["price"]["rent_usd_per_h"], one["price"]["purchase_usd"]) for one in accounts}
    assert found == {"rent": (18.5, None), "spot": (7.0, None), "buy": (None, 150_000.0)}
    text = txlplan(*small, "--on", "p4d.24xlarge", *stated, "--pay", "spot").stdout
    assert "stated for p4d.24xlarge is used with --pay spot only" not in text


def test_what_is_bought_says_its_outlay(txlplan: Any, small: list[str], tmp_path: Path) -> None:
    """In the terminal and in every file."""
    asked = (*small, "--on", "dgx-1,p3.16xlarge", "--pay", "buy", "--price", "dgx-1=149000 USD")
    result = txlplan(*asked, "-o", tmp_path / "a.md", "-o", tmp_path / "b.csv", "--html", tmp_path / "a.html")
    assert (tmp_path / "b.csv").exists()
    assert "buy, an outlay of $149,000" in " ".join(result.stdout.split())
    assert " after an outlay of $149,000, " in result.stdout.splitlines()[-1]
    assert "| bought (an outlay of $149,000) |" in (tmp_path / "a.md").read_text()
    assert '<span class="range">an outlay of $149,000</span>' in (tmp_path / "a.html").read_text()
    document = txlplan(*asked, "-o", tmp_path / "a.csv", "--json").json
    first = document["candidates"][0]
    assert first["account"]["capital_usd"] == first["sizes"][0]["capital_usd"] == 149_000
    with (tmp_path / "a.csv").open(newline="") as stream:
        (size,) = [row for row in csv.DictReader(stream) if row["table"] == "sizes" and row["candidate"] == "dgx-1"]
    assert float(size["capital_usd"]) == 149_000


@pytest.mark.parametrize(
    ("rent", "answer"),
    [("900/h", "pays after "), ("1.50/h", "never pays: it would need "), ("0.01/h", "never pays: electricity costs more")],
)
def test_whether_buying_pays_is_said_alike_everywhere(
    txlplan: Any, small: list[str], tmp_path: Path, rent: str, answer: str
) -> None:
    prices = ("--price", f"p3.16xlarge={rent}", "--price", "dgx-1=149000 USD")
    asked = (*small, "--on", "dgx-1,p3.16xlarge", *prices, "--html", tmp_path / "a.html")
    document = txlplan(*asked, "-o", tmp_path / "a.md", "--json").json
    (line,) = [line for line in txlplan(*asked).stdout.splitlines() if line.startswith("buying dgx-1")]
    said = line.removeprefix("buying dgx-1 instead of renting p3.16xlarge ")
    assert said.startswith(answer)
    assert document["break_evens"][0]["pays"] is said.startswith("pays")
    for name in ("a.md", "a.html"):
        assert said in (tmp_path / name).read_text().replace("\u00a0", " ")


def test_a_hypothetical_part_is_compared_like_a_real_one(txlplan: Any, small: list[str]) -> None:
    variant = ("--device-like", "a100-sxm4-40gb", "--set", "memory_bandwidth=3 TB/s", "--set", "peak.bf16=600 TFLOP/s")
    document = txlplan(*small, "--on", "p4d.24xlarge,dgx-1", *variant, "--json").json
    speed = {row["candidate"]: row["estimate"]["tokens_per_s"]["value"] for row in document["candidates"]}
    name = "p4d.24xlarge with memory_bandwidth = 3 TB/s, peak.bf16 = 600 TFLOP/s"
    assert set(speed) == {"p4d.24xlarge", "dgx-1", name}
    assert speed[name] > speed["p4d.24xlarge"]
    assert f"{name} does not exist: it is given the price of p4d.24xlarge" in document["warnings"]


def test_assumptions_change_what_is_bought(txlplan: Any, small: list[str]) -> None:
    def cost(*more: str) -> float:
        document = txlplan(*small, "--on", "dgx-1", *more, "--json").json
        value: float = document["candidates"][0]["account"]["cost_usd"]["value"]
        return value

    assert cost("--assume", "utilisation=1.0") < cost() < cost("--assume", "electricity=2 USD/kWh")


def test_a_scenario_file_and_options_over_it(txlplan: Any, small: list[str], tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        f'model = "{small[2]}"\ntokens = 1e9\non = ["p3.16xlarge", "dgx-1"]\nrank_by = "cost"\ndeadline = "30 d"\n'
        '[prices]\n"p3.16xlarge" = "2 USD/h"\n[assume]\npue = 1.2\n'
        '[[what_if]]\nlike = "v100-sxm2-16gb"\nset = { memory_bandwidth = "2 TB/s" }\n'
    )
    document = txlplan("compare", scenario, "--json").json
    assert document["rank_by"] == "cost"
    assert document["assumptions"]["pue"] == 1.2
    assert document["assumptions"]["sources"]["pue"] == "stated for this comparison"
    assert document["workload"]["deadline_s"] == 30 * 86400
    assert len(document["candidates"]) == 4
    assert txlplan("compare", scenario, "--rank-by", "time", "--json").json["rank_by"] == "time"


def test_files_of_every_kind_say_the_same(txlplan: Any, small: list[str], tmp_path: Path) -> None:
    verdicts = []
    for suffix in ("html", "md", "csv", "json"):
        path = tmp_path / f"answer.{suffix}"
        result = txlplan(*small, "--on", "p3.16xlarge,1..2xp4d.24xlarge", "-o", path)
        assert result.exit_code == 0, result.stderr
        assert f"wrote {path}" in result.stdout
        verdicts.append(result.stdout.splitlines()[-1])
    assert len(set(verdicts)) == 1
    assert verdicts[0].split(":")[0] in (tmp_path / "answer.html").read_text().replace("\u00a0", " ")
    assert f"**{verdicts[0].split(':')[0]}: it trains" in (tmp_path / "answer.md").read_text()
    assert json.loads((tmp_path / "answer.json").read_text())["verdict"]["sentence"] == verdicts[0]
    with (tmp_path / "answer.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    rows = [row for row in table if row["table"] == "sizes"]
    assert [row["candidate"] for row in rows] == ["p4d.24xlarge", "2x p4d.24xlarge", "p3.16xlarge"]
    parts = ("start_s", "steps_s", "evaluation_s", "checkpoints_s", "failures_s")
    assert sum(float(rows[0][part]) for part in parts) == pytest.approx(float(rows[0]["time_s"]))
    document = json.loads((tmp_path / "answer.json").read_text())
    for name in ("break_evens", "sensitivities", "prices", "measured", "warnings"):
        assert sum(row["table"] == name for row in table) == len(document[name])
    assert [row["source"] for row in table if row["table"] == "prices"] == [price["source"] for price in document["prices"]]
    assert {row["key"] for row in table if row["table"] == "assumptions"} == set(document["assumptions"]) - {"sources"}
    assert float(rows[0]["time_s_low"]) < float(rows[0]["time_s"]) < float(rows[0]["time_s_high"])


def test_conditions_end_with_exit_5(txlplan: Any, small: list[str]) -> None:
    on = ("--on", "p3.16xlarge,dgx-1", "--price", "p3.16xlarge=0.01/h", "--rank-by", "cost")
    result = txlplan(*small, *on, "--fail-on", "cost > 0.0001", "--fail-on", "cost < 0.0001")
    assert result.exit_code == 5
    assert result.stderr.startswith("failed: cost is $")
    assert result.stderr.count("failed") == 1
    assert txlplan(*small, *on, "--fail-on", "best != p3.16xlarge").exit_code == 0


@pytest.mark.parametrize(
    ("more", "exit_code", "message"),
    [
        (("--on", "dgx-7"), 2, "unknown system 'dgx-7'"),
        (("--on", ","), 2, "nothing to compare"),
        (("--on", "dgx-1", "--tokens", "0"), 2, "tokens = 0"),
        (("--on", "dgx-1", "--tokens", "1.8e9x"), 2, "1.8e9x"),
        (("--on", "dgx-1", "--global-batch", "0"), 2, "global_batch = 0"),
        (("--on", "4..1xdgx-1"), 2, "a range of nodes goes up"),
        (("--on", "0xdgx-1"), 2, "a range of nodes goes up"),
        (("--on", "dgx-1", "--price", "dgx-1=0/h"), 2, "price of dgx-1"),
        (("--on", "dgx-1", "--price", "dgx-1=-4/h"), 2, "price of dgx-1"),
        (("--on", "dgx-1", "--price", "dgx-1=nan/h"), 2, "price of dgx-1"),
        (("--on", "dgx-1", "--price", "dgx-1"), 2, "KEY=VALUE"),
        (("--on", "dgx-1", "--price", "dgx-2=4/h"), 2, "'dgx-2', which is no candidate"),
        (("--on", "dgx-1", "--price", "dgx-1=4/h", "--price", "dgx-1=5/h"), 2, "'5/h' is the second of its kind, on-demand"),
        (("--on", "dgx-1", "--assume", "pue=1.2", "--assume", "pue=1.3"), 2, "--assume pue is stated twice"),
        (("--on", "dgx-1", "--rank-by", "colour"), 2, "rank_by"),
        (("--on", "dgx-1", "--deadline", "soon"), 2, "deadline"),
        (("--on", "dgx-1", "--budget", "nan USD"), 2, "budget"),
        (("--on", "dgx-1", "--assume", "pu=2"), 2, "did you mean 'pue'"),
        (("--on", "dgx-1", "--assume", "pue=nan"), 2, "pue"),
        (("--on", "100000000xdgx-1"), 2, "no machine for training has more than 200,000"),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "power=0 W"), 2, "power must be more than zero"),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "power_idle=400 W"), 2, "power_idle is more than power"),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "cores=0"), 2, "cores = 0 must be at least 1"),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "memory_usable=99 GiB"), 2, "memory_usable is more"),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "kind=cpu"), 2, "'kind' cannot be set"),
        (("--on", "dgx-1", "--set", "cores=9"), 2, "--set without --device-like"),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb"), 2, "nothing is changed"),
        (
            ("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "memory_bandwith=3 TB/s"),
            2,
            "did you mean 'memory_bandwidth'",
        ),
        (("--on", "dgx-1", "--device-like", "v100-sxm2-16gb", "--set", "memory_bandwidth=0 TB/s"), 2, "memory_bandwidth"),
        (("--on", "dgx-1", "--device-like", "t4", "--set", "cores=50"), 2, "no candidate holds t4"),
        (("--on", "dgx-1", "--fail-on", "cost"), 2, "no condition"),
        (("--on", "dgx-1", "--fail-on", "cost > much"), 2, "--fail-on cost"),
        (("--on", "dgx-1", "--fail-on", "probability < 120%"), 2, "not between"),
        (("--on", "dgx-1", "--html", "answer.pdf"), 2, "tells no format"),
        (("--on", "dgx-1", "--deadline", "1 s"), 3, "the deadline is"),
    ],
)
def test_bad_input(txlplan: Any, small: list[str], tmp_path: Path, more: tuple[str, ...], exit_code: int, message: str) -> None:
    target = tmp_path / "answer.html"
    result = txlplan(*small, *more, "-o", target)
    assert result.exit_code == exit_code, result.stderr
    assert message in result.stderr
    assert "bug" not in result.stderr
    assert not target.exists(), "nothing is written"


def test_what_is_missing_is_asked_for(txlplan: Any) -> None:
    for arguments, missing in (((), "--model"), (("--model", "demo-bytes"), "--tokens")):
        result = txlplan("compare", *arguments)
        assert result.exit_code == 2
        assert f"{missing} is missing" in result.stderr
    assert txlplan("compare", "nowhere.toml").exit_code == 2


def test_plans_that_cannot_be_run_are_marked_or_left_out(txlplan):
    """With a deadline the exact optimum is offered, simpler or not."""
    asked = ("compare", "--model", "nvidia-wt103-base", "--tokens", "1e9", "--on", "2xdgx-1", "--deadline", "30d")
    whole, runs = txlplan(*asked), txlplan(*asked, "--runnable")
    assert whole.exit_code == runs.exit_code == 0
    assert "ZeRO" in whole.stdout
    assert "not run by this version" in whole.stdout
    assert "not run by this version" not in runs.stdout
    words = last_next(runs)
    assert words[:9] == ["plan", "--model", "nvidia-wt103-base", "--system", "dgx-1", "--nodes", "2", "--tokens", "1000000000"]
    assert words[-3:] == ["--runnable", "-o", "plan.toml"]


def last_next(result: Any) -> list[str]:
    """The words of the command that is named last."""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("next: txlplan ")]
    return shlex.split(line.removeprefix("next: txlplan "))


def test_the_next_command_plans_what_was_recommended_as_it_was_named(
    txlplan: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    box = systems.path("p3.2xlarge").read_text()
    (tmp_path / "my box.toml").write_text(box)
    result = txlplan(*small, "--on", "./my box.toml", "--price", "./my box.toml=3/h", "--rank-by", "cost")
    assert result.exit_code == 0, result.stderr
    words = last_next(result)
    assert words[words.index("--system") + 1] == "./my box.toml"
    assert txlplan(*words).exit_code == 0
    assert (tmp_path / "plan.toml").exists()


def test_the_next_command_has_the_limits_as_it_counts_them(
    txlplan: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`plan` counts steps alone: their share of the deadline and of the budget, of a rent that it knows too."""
    monkeypatch.chdir(tmp_path)
    limits = ("--deadline", "30 d", "--budget", "50000 USD", "--max-power", "4 kW", "--memory-headroom", "0.1")
    asked = (*small, "--on", "p4d.24xlarge", *limits, "--without", "zero,offload", "--rank-by", "cost")
    result = txlplan(*asked)
    assert result.exit_code == 0, result.stderr
    words = last_next(result)
    given = dict(zip(words[1::2], words[2::2], strict=True))
    account = txlplan(*asked, "--json").json["candidates"][0]["account"]
    share = account["duration"]["steps_s"] / account["time_s"]["value"]
    assert float(given["--deadline"].removesuffix(" s")) == pytest.approx(30 * 86400 * share, abs=0.01)
    assert float(given["--budget"].removesuffix(" USD")) == pytest.approx(50_000 * share, abs=0.01)
    assert (given["--max-power"], given["--memory-headroom"], given["--without"]) == ("4000.0 W", "0.1", "zero,offload")
    planned = txlplan(*words, "--json")
    assert planned.exit_code == 0, planned.stderr
    assert planned.json["choice"]["totals"]["time_s"]["value"] <= 30 * 86400 * share
    stated = last_next(txlplan(*small, "--on", "dgx-1", "--budget", "50000 USD", "--price", "dgx-1=20/h"))
    assert "--budget" not in stated, "plan knows no price that is stated for once"


def test_limits_of_power_and_memory_and_what_is_left_out(txlplan: Any, small: list[str]) -> None:
    def plans(*more: str) -> list[Any]:
        result = txlplan(*small, "--on", "p4d.24xlarge", *more, "--json")
        assert result.exit_code == 0, result.stderr
        return [row["plan"] for row in result.json["candidates"]]

    (four,) = plans("--max-power", "1.6 kW")
    assert four["data_parallel"] * four["tensor_parallel"] * four["pipeline_parallel"] * four["context_parallel"] <= 4
    (bare,) = plans("--without", "tensor-parallel,pipeline-parallel,context-parallel,zero,offload,checkpointing")
    assert bare["zero_stage"] == 0
    assert bare["data_parallel"] == 8
    for command in ("compare", "plan"):
        where = ("--on", "p4d.24xlarge") if command == "compare" else ("--system", "p4d.24xlarge")
        refused = txlplan(command, *small[1:], *where, "--memory-headroom", "0.999")
        assert refused.exit_code == 3, refused.stderr
        wrong = txlplan(command, *small[1:], *where, "--memory-headroom", "1.5")
        assert wrong.exit_code == 2
        assert "memory_headroom = 1.5 must be in [0, 1)" in wrong.stderr
    assert txlplan(*small, "--on", "p4d.24xlarge", "--without", "wheels").exit_code == 2


def test_what_misses_the_deadline_if_the_run_is_longer_does_so_with_the_plan_shown(txlplan: Any, small: list[str]) -> None:
    time_s = txlplan(*small, "--on", "p3.16xlarge", "--json").json["candidates"][0]["account"]["time_s"]["value"]
    lines = txlplan(*small, "--on", "p3.16xlarge", "--deadline", f"{1.5 * time_s} s").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("if the run is twice as long: ")]
    assert line.startswith("if the run is twice as long: with the plans shown, every candidate misses the deadline")


def test_a_price_stated_for_once_leaves_the_next_command_runnable(
    txlplan: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`plan` knows no --price: the cheapest plan of a system without a known one cannot be asked for."""
    monkeypatch.chdir(tmp_path)
    words = last_next(txlplan(*small, "--on", "dgx-h100", "--price", "dgx-h100=60/h", "--rank-by", "cost"))
    assert "--objective" not in words
    assert txlplan(*words).exit_code == 0
    assert "cheapest" in last_next(txlplan(*small, "--on", "p3.16xlarge", "--rank-by", "cost"))


def test_a_hypothetical_verdict_names_the_best_that_exists_which_is_planned_next(txlplan: Any, small: list[str]) -> None:
    variant = ("--device-like", "v100-sxm2-16gb", "--set", "memory_bandwidth=30 TB/s", "--set", "peak.fp16=3000 TFLOP/s")
    result = txlplan(*small, "--on", "p3.16xlarge,g4dn.xlarge", *variant)
    verdict = result.stdout.splitlines()[-1]
    assert verdict.startswith("If it existed, rent p3.16xlarge with memory_bandwidth = 30 TB/s, ")
    assert "; of what exists, the first is p3.16xlarge, in " in verdict
    assert last_next(result)[:5] == ["plan", "--model", small[2], "--system", "p3.16xlarge"]
    document = txlplan(*small, "--on", "p3.16xlarge,g4dn.xlarge", *variant, "--json").json["verdict"]
    assert (document["hypothetical"], document["best_existing"]) == (True, "p3.16xlarge")


def test_a_way_to_pay_without_prices_is_refused_with_the_way_to_state_one(txlplan: Any, small: list[str]) -> None:
    for more in ((), ("--rank-by", "cost"), ("--budget", "500 USD")):
        result = txlplan(*small, "--on", "dgx-1,dgx-a100-40gb", "--pay", "rent", *more)
        assert result.exit_code == 2
        assert "no on-demand price is known of dgx-1 and dgx-a100-40gb" in result.stderr
        assert "hint: --price dgx-1=18.50/h states one" in result.stderr
    mixed = txlplan(*small, "--on", "dgx-a100-40gb,p3.16xlarge", "--pay", "rent", "--rank-by", "cost")
    (line,) = [line for line in mixed.stdout.splitlines() if line.startswith("dgx-a100-40gb")]
    assert " ".join(line.split()) == "dgx-a100-40gb out no on-demand price is known"
    note = "note: no on-demand price is known of dgx-a100-40gb: left out; --price dgx-a100-40gb=18.50/h states one"
    assert note in mixed.stdout
    assert mixed.stdout.splitlines()[-1].startswith("Rent p3.16xlarge")


def test_the_smaller_size_that_is_recommended_has_a_line_of_its_own(txlplan: Any, tmp_path: Path) -> None:
    asked = ("compare", "--model", "nvidia-wt103-base", "--on", "1..8xp4d.24xlarge,p3.16xlarge", "--tokens", "1e9")
    document = txlplan(*asked, "-o", tmp_path / "a.md", "--json").json
    smaller = document["candidates"][0]["smaller"]
    assert smaller == document["verdict"]["best"] != document["candidates"][0]["candidate"]
    lines = txlplan(*asked).stdout.splitlines()
    assert lines[2].startswith(f"{smaller} (recommended) ")
    assert f"| {smaller} (recommended) |" in (tmp_path / "a.md").read_text()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            'on = ["dgx-1"]\ntokens = 1e9\n[prices]\n"dgx-1" = 0\n',
            'prices.dgx-1: 0 is no price; write it like "18.50 USD/h" to rent',
        ),
        ('on = ["dgx-1"]\ntokens = 1e9\n[prices]\n"dgx-1" = []\n', "prices.dgx-1: [] is no price"),
        ('on = []\ntokens = 1e9\n[prices]\n"dgx-1" = "5 USD/h"\n', 'nothing to compare: name systems, like on = ["dgx-1"'),
        ('on = ["dgx-1"]\ntokens = nan\n', "tokens: 'nan' is not a count; write it like '1.8e9'"),
        ('on = ["dgx-1"]\ntokens = 1e9\ndeadline = 5\n', "deadline: 5 has no unit; write a time like '3 d'"),
        ('on = ["dgx-1"]\ntokens = 1e9\ndeadline = "5"\n', "deadline: '5' has no unit; write a time like '3 d'"),
        ('on = ["dgx-1"]\ntokens = 1e9\nbudget = "500"\n', "budget: '500' has no unit; write a price like '149000 USD'"),
    ],
)
def test_what_is_wrong_in_a_scenario_is_named_with_its_file_and_key(
    txlplan: Any, tmp_path: Path, lines: str, said: str
) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(f'model = "demo-bytes"\n{lines}')
    result = txlplan("compare", path)
    assert result.exit_code == 2
    assert f"{path}: " in result.stderr
    assert said in result.stderr
