"""The commands estimate and plan."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from txlplan import resources
from txlplan.data import Settings, prepare
from txlplan.detection import this_machine
from txlplan.plan_file import read_plan_file

ON = ("--system", "dgx-1", "--model", "nvidia-wt103-base")
CPU = ("--system", "generic-cpu", "--model", "demo-bytes", "--tokens", "1e6")


def test_estimate_explains(txlplan: Any) -> None:
    result = txlplan("estimate", *ON, "--micro-batch", 32, "--precision", "fp16", "--explain")
    assert result.exit_code == 0
    assert "tokens/s" in result.stdout
    for term in (
        "attention scores",
        "projections",
        "feed-forward",
        "softmax loss",
        "optimizer",
        "saved activations",
        "context",
    ):
        assert term in result.stdout
    assert "next: txlplan plan" in result.stderr


def test_devices_of_a_cpu_are_processes_that_share_it_in_estimates_plans_and_plan_files(txlplan: Any, tmp_path: Path) -> None:
    options = ("--system", "generic-cpu", "--model", "demo-bytes", "--devices", 2)
    path = tmp_path / "plan.toml"
    planned = txlplan("plan", *options, "--tokens", "1e6", "--runnable", "-o", path)
    assert planned.exit_code == 0
    plan = read_plan_file(path).plan
    assert plan.data_parallel == 2
    same = {"--micro-batch": plan.micro_batch, "--precision": plan.precision, "--attention": plan.attention}
    same |= {"--threads": plan.threads, "--accumulation": plan.accumulation}
    alike = txlplan("estimate", *options, *(word for pair in same.items() for word in pair), "--json").json
    of_file = txlplan("estimate", path, "--json").json
    assert alike["plan"] == of_file["plan"]
    assert alike["estimate"]["step_s"] == of_file["estimate"]["step_s"]
    assert any("share a CPU" in note for note in alike["estimate"]["notes"])
    refused = txlplan("estimate", "--system", "generic-cpu", "--model", "demo-bytes", "--devices", 9)
    assert refused.exit_code == 2
    assert "9 processes cannot share" in refused.stderr


def test_estimate_as_json(txlplan: Any) -> None:
    result = txlplan("estimate", *ON, "--micro-batch", 8, "--devices", 1, "--json")
    document = result.json
    assert document["plan"]["data_parallel"] == 1
    estimate = document["estimate"]
    assert estimate["step_s"]["low"] < estimate["step_s"]["value"] < estimate["step_s"]["high"]
    times = [term["value"] for term in estimate["terms"] if term["quantity"] == "time"]
    assert sum(times) == pytest.approx(estimate["step_s"]["value"])


@pytest.mark.parametrize(
    "of",
    [
        ("--model", "original-wt103-base", "--task", "generate", "--system", "generic-cpu", "--micro-batch", 1),
        ("--model", "original-enwik8-12", "--system", "dgx-a100-40gb", "--devices", 1, "--micro-batch", 1),
    ],
    ids=["tokens on a CPU", "training on a GPU"],
)
def test_an_estimate_of_compiled_steps_is_shorter(of: tuple[Any, ...], txlplan: Any) -> None:
    plain, compiled = (txlplan("estimate", *of, *more, "--json").json for more in ((), ("--compile-step",)))
    assert (plain["plan"]["compile"], compiled["plan"]["compile"]) == (False, True)
    assert compiled["estimate"]["step_s"]["value"] < plain["estimate"]["step_s"]["value"]


TOO_LARGE = ("--model", "nvidia-wt103-large", "--system", "dgx-1", "--devices", 1, "--micro-batch", 32)


def test_an_estimate_that_does_not_fit_names_the_term_and_fixes(txlplan: Any) -> None:
    result = txlplan("estimate", *TOO_LARGE)
    assert result.exit_code == 3
    assert "DOES NOT FIT" in result.stdout
    assert re.search(
        r"does not fit NVIDIA Tesla V100 SXM2 16 GB: it needs .* \([\d,]+ bytes\) too many; the term that overflows is saved",
        result.stderr,
    )
    assert result.stderr.count("; or ") == 2
    assert "next:" not in result.stderr
    document = txlplan("estimate", *TOO_LARGE, "--json")
    assert document.exit_code == document.json["error"]["exit_code"] == 3
    estimate = document.json["estimate"]
    assert estimate["peak_memory_bytes"]["value"] > estimate["capacity_bytes"]
    fixes = document.json["fixes"]
    assert len(fixes) == 3
    assert all(fix["estimate"]["peak_memory_bytes"]["value"] <= fix["estimate"]["capacity_bytes"] for fix in fixes)


def test_every_kind_of_checkpointing_can_be_estimated(txlplan: Any) -> None:
    def peak(*more: object) -> float:
        fitting = (*ON, "--devices", 1, "--micro-batch", 8, "--json")
        return float(txlplan("estimate", *fitting, *more).json["estimate"]["peak_memory_bytes"]["value"])

    option = "--activation-checkpointing"
    whole = [peak(), *(peak(option, kind) for kind in ("attention", "feed-forward", "full"))]
    assert whole == sorted(whole, reverse=True)
    assert len(set(whole)) == 4
    assert whole[0] > peak(option, "full", "--checkpointed-layers", 8) > whole[3]


def test_an_option_beside_a_plan_file_is_refused(txlplan: Any, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    assert txlplan("plan", "--model", "demo-bytes", "--system", "generic-cpu", "-o", path).exit_code == 0
    refused = txlplan("estimate", path, "--micro-batch", 4)
    assert refused.exit_code == 2
    assert "--micro-batch has no effect beside" in refused.stderr


def test_plan_writes_a_file_that_estimate_reads(txlplan: Any, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    result = txlplan("plan", "--model", "demo-bytes", "--system", "generic-cpu", "--tokens", "1e8", "-o", path)
    assert result.exit_code == 0, result.stderr
    plan_file = read_plan_file(path)
    assert plan_file.workload.tokens == 100_000_000
    assert plan_file.plan.global_batch == plan_file.workload.model.published_batch
    assert plan_file.run.device == "cpu"
    assert f"next: txlplan run {path}   # on generic-cpu" in result.stderr
    assert f"note: no --data was given; the plan file names {Path.cwd() / 'data'}" in result.stderr
    again = txlplan("estimate", path, "--json").json
    chosen = txlplan("plan", "--model", "demo-bytes", "--system", "generic-cpu", "--tokens", "1e8", "--json").json
    assert again["estimate"] == chosen["choice"]["estimate"]


def test_plan_and_run_train_alike(txlplan: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a line of text\n" * 4000)
    prepare([tmp_path / "text.txt"], tmp_path / "data", processes=1)
    asked = ("--model", "demo-bytes", "--data", tmp_path / "data", "--tokens", "50k", "--json")
    planned, run = txlplan("plan", *asked).json["plan_file"], txlplan("run", *asked, "--dry-run").json["plan_file"]
    assert planned["workload"] == run["workload"]
    assert planned["data"] == run["data"]
    assert planned["plan"] == run["plan"]


def test_plan_refuses_data_of_another_vocabulary(txlplan: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a line of text\n" * 400)
    prepare([tmp_path / "text.txt"], tmp_path / "data", settings=Settings(vocabulary="characters"), processes=1)
    result = txlplan("plan", "--model", "demo-bytes", "--data", tmp_path / "data")
    assert result.exit_code == 2
    assert "vocab_size = 256" in result.stderr


def test_a_range_of_batches_ends_at_the_published_one(txlplan: Any) -> None:
    asked = ("plan", "--model", "nvidia-wt103-base", "--system", "dgx-1", "--json")
    document = txlplan(*asked, "--global-batch", "60..").json
    assert document["plan_file"]["workload"]["global_batch"] in (60, 120, 240, 256)
    assert document["plan_file"]["workload"]["largest_global_batch"] is None, "the plan file holds the one that was chosen"
    whole, one = document["choice"]["n_considered"], txlplan(*asked, "--global-batch", "60").json["choice"]["n_considered"]
    assert whole > one


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ("many", "neither a number nor a range"),
        ("64..x", "neither a number nor a range"),
        ("512..", "less than"),
        ("64..32", "less than"),
        ("0", "at least 1"),
    ],
)
def test_batches_that_cannot_be(txlplan: Any, batch: str, said: str) -> None:
    refused = txlplan("plan", "--model", "nvidia-wt103-base", "--system", "dgx-1", "--global-batch", batch)
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_a_plan_of_several_nodes_is_estimated_on_as_many(txlplan: Any, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    planned = txlplan("plan", "--model", "nvidia-wt103-base", "--system", "dgx-1", "--nodes", "2", "-o", path, "--json").json
    again = txlplan("estimate", path, "--json")
    assert again.exit_code == 0, again.stderr
    assert again.json["estimate"]["step_s"] == planned["choice"]["estimate"]["step_s"]


def test_what_does_not_fit_is_named_with_changes_that_fit(txlplan: Any) -> None:
    asked = ("--model", "nvidia-wt103-large", "--system", "dgx-1", "--devices", "1", "--stack", "nvidia-20.06-eager")
    fixed = ("--precision", "fp32", "--micro-batch", "4", "--global-batch", "4")
    refused = txlplan("plan", *asked, *fixed, "--without", "checkpointing,offload")
    assert refused.exit_code == 3
    assert "the term that overflows is saved activations" in refused.stderr
    assert refused.stderr.count("; or ") == 2
    assert txlplan("plan", *asked, "--precision", "fp16", *fixed[2:], "--without", "checkpointing,offload").exit_code == 0


@pytest.mark.parametrize("attention", ["fast", "reference", "compiled"])
def test_a_plan_computes_attention_as_asked(txlplan: Any, attention: str) -> None:
    planned = txlplan("plan", *CPU, "--attention", attention, "--json").json
    others = [runner_up["plan"] for runner_up in planned["choice"]["runners_up"]]
    assert {plan["attention"] for plan in (planned["plan_file"]["plan"], *others)} == {attention}
    assert f"--attention {attention} " in txlplan("plan", *CPU, "--attention", attention).stderr


def test_a_refusal_of_compiled_attention_names_the_option(txlplan: Any) -> None:
    refused = txlplan("estimate", *ON, "--attention", "compiled")
    assert refused.exit_code == 2
    assert 'hint: --attention fast (in a plan file, attention = "fast") is for everything' in refused.stderr


def test_compiled_attention_is_not_planned_for_a_machine_without_a_compiler(
    txlplan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if this_machine()[1].kind != "cpu":
        pytest.skip("such attention is what CPUs run")
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused = txlplan("plan", "--model", "demo-bytes", "--tokens", "1e6", "--attention", "compiled")
    assert refused.exit_code == 2
    assert "no C++ compiler is found" in refused.stderr


def test_compiled_attention_in_bf16_is_not_planned_for_a_machine_that_is_told_to_do_without_its_instructions(
    txlplan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if this_machine()[1].kind != "cpu" or resources.cpp_compiler() is None:
        pytest.skip("needs a CPU and a C++ compiler")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    asked = ("plan", "--model", "demo-bytes", "--tokens", "1e6", "--attention", "compiled")
    assert txlplan(*asked, "--json").json["plan_file"]["plan"]["precision"] == "fp32"
    for system in ("local", "local-cpu"):
        refused = txlplan(*asked, "--precision", "bf16", "--system", system)
        assert (refused.exit_code, "told not to use" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attention", "compiled"), "note: `txlplan run` refuses compiled attention here: no C++ compiler is found"),
        (("--task", "generate", "--compile-step"), "note: `txlplan run` does not compile the step here, and is slower: no C++"),
    ],
)
def test_an_estimate_says_what_a_run_here_lacks(
    txlplan: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    if this_machine()[1].kind != "cpu":
        pytest.skip("compiled by a C++ compiler is what CPUs run")
    asked = ("estimate", "--model", "demo-bytes", *options)
    has_compiler = resources.cpp_compiler() is not None
    assert (said in txlplan(*asked).stdout) != has_compiler
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert said in txlplan(*asked).stdout
    assert said not in txlplan(*asked, "--system", "generic-cpu").stdout


def test_an_estimate_of_a_plan_file_that_cannot_run_here_says_what_to_write_in_it(
    txlplan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if this_machine()[1].kind != "cpu" or resources.cpp_compiler() is None:
        pytest.skip("needs a CPU and a C++ compiler")
    path = tmp_path / "plan.toml"
    asked = ("plan", "--model", "demo-bytes", "--tokens", "1e6", "--attention", "compiled", "--precision", "fp32")
    assert txlplan(*asked, "-o", path).exit_code == 0
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert 'in a plan file, attention = "fast"' in txlplan("estimate", path).stdout


def test_plan_for_this_machine(txlplan: Any) -> None:
    document = txlplan("plan", "--model", "demo-bytes", "--tokens", "1e6", "--json").json
    assert document["plan_file"]["run"]["device"] in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("estimate", "--system", "dgx-1"), 2, "no model is named"),
        (("estimate", "--model", "nvidia-wt103-bas", "--system", "dgx-1"), 2, "nvidia-wt103-base"),
        (("estimate", *ON, "--precision", "fp17"), 2, "'fp17' is not one of"),
        (("estimate", *ON, "--activation-checkpointing", "attentio"), 2, "'attentio' is not one of"),
        (("estimate", *ON, "--checkpointed-layers", "4"), 2, "needs activation_checkpointing"),
        (("estimate", *ON, "--activation-checkpointing", "full", "--checkpointed-layers", "99"), 2, "no stage has so many"),
        (("estimate", *ON, "--precision", "bf16"), 2, "has no bf16"),
        (("estimate", *ON, "--activation-checkpointing", "full", "--task", "score"), 2, "only training keeps activations"),
        (("estimate", *ON, "--micro-batch", "0"), 2, "at least 1"),
        (("estimate", *ON, "--devices", "9"), 2, "evenly"),
        (("estimate", "missing.toml"), 2, "no such file"),
        (("plan", *ON, "--tokens", "many"), 2, "plan: tokens: 'many'"),
        (("plan", *ON, "--tokens", "-5"), 2, "plan: tokens: '-5'"),
        (("plan", *ON, "--global-batch", "0"), 2, "global_batch"),
        (("plan", *ON, "--attention", "tiles"), 2, "'tiles' is not one of"),
        (("plan", *ON, "--attention", "compiled"), 2, "on a CPU by our own stack; this is to train on NVIDIA Tesla V100"),
        (("plan", *CPU, "--attention", "compiled", "--without", "compiled-attention"), 2, "it is not to be used"),
        (("plan", *ON, "--objective", "fastes"), 2, "did you mean 'fastest'"),
        (("plan", *ON, "--objective", "cheapest", "--system", "v100-sxm2-16gb"), 2, "price"),
    ],
)
def test_bad_input(txlplan: Any, arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    result = txlplan(*arguments)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    document = txlplan(*arguments, "--json").json
    assert document["error"]["exit_code"] == exit_code


def test_nothing_fits(txlplan: Any, tmp_path: Path) -> None:
    device = tmp_path / "profiles" / "devices" / "tiny-gpu.toml"
    device.parent.mkdir(parents=True)
    device.write_text('extends = "t4"\nmemory = "2 GiB"\nmemory_usable = "1 GiB"\n')
    system = tmp_path / "profiles" / "systems" / "tiny.toml"
    system.parent.mkdir(parents=True)
    system.write_text('name = "Tiny"\nkind = "server"\ndevice = "tiny-gpu"\nn_devices = 1\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TXLPLAN_PROFILES", str(tmp_path / "profiles"))
        result = txlplan("plan", "--model", "lambda-wt103-large", "--system", "tiny", "--tokens", "1e9")
    assert result.exit_code == 3
    assert "the term that overflows is" in result.stderr
    assert "hint:" in result.stderr


BIG = ("--model", "nvidia-wt103-large", "--system", "dgx-1", "--nodes", 2, "--tokens", "1e9")


def test_a_plan_that_cannot_be_run_yet_says_so_and_is_refused(txlplan: Any, tmp_path: Path) -> None:
    large = ("--model", "nvidia-wt103-large", "--system", "dgx-a100-40gb", "--nodes", 32, "--tokens", "1e9")
    chosen = txlplan("plan", *large, "--json").json["choice"]
    assert not chosen["runnable"]
    assert "cannot be run yet: plan." in txlplan("plan", *large).stdout
    runs = txlplan("plan", *large, "--runnable", "--json").json["choice"]
    assert runs["runnable"]
    assert runs["estimate"]["tokens_per_s"]["value"] <= 1.2 * chosen["estimate"]["tokens_per_s"]["value"]

    path = tmp_path / "plan.toml"
    assert txlplan("plan", "--model", "demo-bytes", "--system", "generic-cpu", "--tokens", "1e6", "-o", path).exit_code == 0
    path.write_text(path.read_text().replace("[plan]", "[plan]\nzero_stage = 2", 1).replace("\nzero_stage = 0", "", 1))
    refused = txlplan("run", path)
    assert refused.exit_code == 2
    assert "plan.zero_stage = 2: this version keeps every state on every device" in refused.stderr


def test_a_plan_file_that_cannot_be_run_says_so_at_its_top(txlplan: Any, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    large = ("--model", "nvidia-wt103-large", "--system", "dgx-a100-40gb", "--nodes", 32)
    planned = txlplan("plan", *large, "--tokens", "1e9", "-o", path)
    assert planned.exit_code == 0
    assert "--runnable" in planned.stderr
    first, second, *_ = path.read_text().splitlines()
    assert first == "# This version of txlplan can estimate this plan, but not run it:"
    assert second.startswith("#   plan.")
    refused = txlplan("run", path)
    assert refused.exit_code == 2
    assert "this version of txlplan cannot execute the plan" in refused.stderr
    assert "--runnable" in refused.stderr


def test_data_is_read_only_where_it_is_named(txlplan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("no data set")
    assert txlplan("plan", "--model", "demo-bytes").exit_code == 0
    refused = txlplan("plan", "--model", "demo-bytes", "--data", "data")
    assert refused.exit_code == 2
    assert "data" in refused.stderr


def test_a_plan_as_a_page(txlplan: Any, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert txlplan("plan", *ON, "--explain", "--html", page).exit_code == 0
    text = page.read_text()
    for said in (
        "nvidia-wt103-base on dgx-1",
        "Where the time goes",
        "Where the memory goes",
        "Not chosen",
        "tensor_parallel 2",
    ):
        assert said in text


def test_explain_and_without(txlplan: Any) -> None:
    result = txlplan("plan", *BIG, "--explain", "--without", "zero,offload")
    assert result.exit_code == 0, result.stderr
    assert "proven to be worse" in result.stdout
    assert "tensor_parallel 2" in result.stdout
    assert "for the same tokens" in result.stdout
    assert "zero_stage" not in result.stdout
    assert "offload" not in result.stdout


@pytest.mark.parametrize(
    ("more", "exit_code", "message"),
    [
        (("--without", "tensor-paralel"), 2, "did you mean 'tensor-parallel'?"),
        (("--deadline", "-3 d"), 2, "plan: deadline: '-3 d'"),
        (("--deadline", "nan s"), 2, "plan: deadline: 'nan s'"),
        (("--budget", "0 USD"), 2, "plan: budget: '0 USD'"),
        (("--max-power", "10 parsec"), 2, "plan: max_power: '10 parsec'"),
        (("--objective", "fewest-devices"), 2, "needs a deadline"),
        (("--objective", "cheapest", "--system", "dgx-h100"), 2, "needs a price"),
        (("--budget", "5 USD"), 2, "a budget needs a price"),
        (("--deadline", "1 s"), 3, "no plan on dgx-1 meets the deadline of 1.00 s: the fastest takes"),
        (("--max-power", "10 W"), 3, "the least that fits draws"),
        (
            ("--max-power", "310 W", "--deadline", "2 h"),
            3,
            "the deadline of 2.00 h and the power cap of 310 W exclude each other",
        ),
        (("--global-batch", "0"), 2, "global_batch"),
    ],
)
def test_limits_and_restrictions_that_make_no_sense(
    txlplan: Any, tmp_path: Path, more: tuple[str, ...], exit_code: int, message: str
) -> None:
    path = tmp_path / "plan.toml"
    result = (
        txlplan("plan", *BIG, *more, "--without", "pipeline-parallel", "-o", path)
        if "--without" not in more
        else txlplan("plan", *BIG, *more, "-o", path)
    )
    assert result.exit_code == exit_code, result.stderr
    assert message in result.stderr
    assert not path.exists()


def last_next(result: Any) -> str:
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("next: ")]
    return line.removeprefix("next: ")


def test_an_estimate_names_a_next_command_of_the_same_machine(txlplan: Any, tmp_path: Path) -> None:
    two = txlplan("estimate", *ON, "--nodes", "2", "--micro-batch", "4")
    assert last_next(two) == "txlplan plan --model nvidia-wt103-base --system dgx-1 --nodes 2 --tokens 1e8"
    some = txlplan("estimate", *ON, "--devices", "4", "--micro-batch", "4", "--task", "score")
    assert last_next(some).endswith("--system dgx-1 --devices 4 --task score --tokens 1e8")


def test_an_estimate_of_a_plan_that_does_not_run_proposes_one_that_does(
    txlplan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("plan", "--model", "nvidia-wt103-large", "--system", "dgx-1", "--nodes", "2", "--tokens", "1e9")
    txlplan(*asked, "--global-batch", "32", "--objective", "fastest", "--deadline", "900 d", "-o", "fast.toml")
    assert not read_plan_file(tmp_path / "fast.toml").plan.runnable
    command = last_next(txlplan("estimate", "fast.toml"))
    assert command.startswith("txlplan plan --model nvidia-wt103-large ")
    assert "--nodes 2" in command
    words = shlex.split(command)[1:]
    assert txlplan(*words).exit_code == 0
    assert last_next(txlplan("estimate", "plan.toml")) == "txlplan run plan.toml"


def test_plan_says_what_its_time_and_its_energy_leave_out(txlplan: Any) -> None:
    text = txlplan("plan", *ON, "--tokens", "1e9").stdout
    said = "steps alone: `txlplan compare` counts start, evaluation, checkpoints and failures too."
    assert f"Time, rent and energy are those of the {said}" in text
    assert "idle devices" not in text
    one = ("--global-batch", "1", "--tokens", "1e9", "--without", "tensor-parallel,pipeline-parallel,context-parallel")
    assert (
        "What 7 idle devices of the occupied nodes draw is unknown, and not in the energy." in txlplan("plan", *ON, *one).stdout
    )
    assert "steps alone" not in txlplan("plan", *ON).stdout, "no time is told"


@pytest.mark.parametrize("command", ["plan", "estimate"])
def test_processes_that_share_a_cpu_are_not_planned_to_generate(txlplan: Any, command: str) -> None:
    """No run starts them."""
    refused = txlplan(command, "--model", "demo-bytes", "--system", "generic-cpu", "--task", "generate", "--devices", "2")
    assert refused.exit_code == 2
    assert "this version generates with one" in refused.stderr
    assert "leave --devices out" in refused.stderr
