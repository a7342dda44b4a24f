"""From a request to a finished run: what is planned for whom, and which plan runs after the trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.data import prepare
from txlplan.errors import CheckpointError, InputError
from txlplan.estimates import Estimate
from txlplan.launcher import Candidate, Planned, RunRequest, plan_again, plan_request, run_planned, this_machine
from txlplan.launcher._request import MOST_STREAMS, SCORING_WINDOWS, run_of, scoring_batches
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, Sampling, write_plan_file
from txlplan.records import open_store
from txlplan.workload import Workload


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 200)
    prepare([tmp_path / "text.txt"], tmp_path / "data", processes=1)
    return tmp_path / "data"


def request(model: ModelConfig, data: Path, **changes: object) -> RunRequest:
    return RunRequest(model=model, data=data, **{"tokens": 4000, "global_batch": 4, **changes})  # type: ignore[arg-type]


def of_three_steps(plan_file: PlanFile, estimate: Estimate) -> Planned:
    """The plan of a file, with nothing to choose from."""
    return Planned(
        plan_file=plan_file,
        candidates=(Candidate(plan=plan_file.plan, estimate=estimate),),
        machine=this_machine(1),
        n_costed=1,
        total_steps=3,
    )


def test_winner_of_the_trials_runs_with_the_estimate_made_before(
    worker: Callable[[str], None], scripted_plan: PlanFile, data: Path, make_estimate: Callable[..., Estimate]
) -> None:
    worker("""
        start()
        if sys.argv[2:3] == ["--trials"]:
            for steps in (3, 2):
                for number, step_s in enumerate((0.5, 0.25)):
                    tell(events.Trying(candidate=number, steps=steps))
                    for count in range(steps): step(count, step_s)
            for number in range(2):
                tell(events.Tried(candidate=number, outcome="ok"))
        finish("ok")
    """)
    plan_file = dataclasses.replace(scripted_plan, plan=Plan(micro_batch=1))
    estimates = [make_estimate(step_s=1.0, tokens_per_s=rate) for rate in (100.0, 99.0)]
    planned = Planned(
        plan_file=plan_file,
        candidates=tuple(Candidate(plan=Plan(micro_batch=n), estimate=e) for n, e in enumerate(estimates, 1)),
        machine=this_machine(1),
        n_costed=2,
        total_steps=10_000,
    )
    said: list[str] = []
    session = run_planned(planned, say=said.append)
    assert session.record is not None
    assert session.record.plan.micro_batch == 2
    assert session.record.estimate == estimates[1]
    assert session.tuned is not None
    assert {trial.parent for trial in session.tuned.trials} == {session.record.id}
    assert [record.kind for record in open_store().list()] == ["run", "trial", "trial"]
    first, *turns = said[:5]
    assert first == "trials of up to 2 plans, at most 60.0 s (0.6% of the predicted run)"
    assert turns == [
        "trial 1: fp32, micro-batch 1, fast attention",
        "trial 2: fp32, micro-batch 2, fast attention",
        "trial 1 again",
        "trial 2 again",
    ]
    assert said[-1] == "run: fp32, micro-batch 2, fast attention"
    with pytest.raises(InputError, match="holds a run already"):
        run_planned(planned)


def test_defaults_follow_the_model(tiny_model: ModelConfig, data: Path) -> None:
    planned = plan_request(request(tiny_model, data))
    optimization = planned.plan_file.workload.optimization
    assert optimization.clip_norm == 0.25
    assert optimization.learning_rate == pytest.approx(2.5e-4 * 410 / 16)
    assert planned.total_steps == 125
    assert optimization.warmup_steps == 3
    assert planned.plan_file.data.evaluation_split == "valid"
    assert planned.plan_file.run.runner == "local"
    assert {candidate.plan.global_batch for candidate in planned.candidates} == {4}


def test_wide_models_keep_the_papers_learning_rate(tiny_model: ModelConfig, data: Path) -> None:
    wide = dataclasses.replace(tiny_model, d_model=1024)
    assert plan_request(request(wide, data)).plan_file.workload.optimization.learning_rate == 2.5e-4


def test_what_is_said_is_kept(tiny_model: ModelConfig, data: Path) -> None:
    planned = plan_request(
        request(tiny_model, data, optimization={"learning_rate": 1.0, "schedule": "linear"}, precision="fp32", micro_batch=2)
    )
    assert planned.plan_file.workload.optimization.learning_rate == 1.0
    assert planned.plan_file.workload.optimization.schedule == "linear"
    assert {(c.plan.precision, c.plan.micro_batch, c.plan.accumulation) for c in planned.candidates} == {("fp32", 2, 2)}


def test_training_makes_one_pass_where_no_length_is_said(tiny_model: ModelConfig, data: Path) -> None:
    from txlplan.data import open_dataset

    planned = plan_request(request(tiny_model, data, tokens=None))
    assert planned.plan_file.workload.tokens == open_dataset(data).split("train").tokens


def test_plan_again_is_the_plan_as_it_is(tiny_model: ModelConfig, data: Path, tmp_path: Path) -> None:
    planned = plan_request(request(tiny_model, data, directory=tmp_path / "run"))
    write_plan_file(tmp_path / "plan.toml", planned.plan_file)
    again = plan_again(tmp_path / "plan.toml")
    assert again.plan_file == planned.plan_file
    assert again.total_steps == planned.total_steps
    assert again.candidates == planned.candidates[:1]
    elsewhere = plan_again(tmp_path / "plan.toml", directory=tmp_path / "other", runner="torchrun")
    assert (elsewhere.plan_file.run.directory, elsewhere.plan_file.run.runner) == (str(tmp_path / "other"), "torchrun")


def test_plan_for_a_gpu_is_refused_on_a_cpu(scripted_plan: PlanFile, tmp_path: Path) -> None:
    if this_machine().backend == "cuda":
        pytest.skip("this machine has a GPU")
    gpu = dataclasses.replace(scripted_plan, run=dataclasses.replace(scripted_plan.run, device="cuda"))
    write_plan_file(tmp_path / "plan.toml", gpu)
    with pytest.raises(InputError, match="computes on cpu"):
        plan_again(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    ("prompts", "micro_batch", "text"),
    [
        (("",), 1, "encodes to no token"),
        (("a" * 9,), 1, r"9 tokens is longer than what the model 'tiny' remembers \(8\)"),
        (("a", "b"), 3, "micro_batch = 3 rows are no multiple of the 2 prompts"),
    ],
)
def test_prompts_of_a_plan_file_are_refused_before_the_start(
    prompts: tuple[str, ...], micro_batch: int, text: str, scripted_plan: PlanFile, data: Path, tmp_path: Path
) -> None:
    generating = dataclasses.replace(
        scripted_plan,
        workload=dataclasses.replace(scripted_plan.workload, task="generate"),
        plan=Plan(micro_batch=micro_batch),
        data=DataSettings(directory=str(data), split="test"),
        run=dataclasses.replace(scripted_plan.run, checkpoint=str(tmp_path)),
        sampling=Sampling(prompt=prompts[0], more_prompts=prompts[1:]),
    )
    write_plan_file(tmp_path / "plan.toml", generating)
    with pytest.raises(InputError, match=text) as raised:
        plan_again(tmp_path / "plan.toml")
    assert raised.value.exit_code == 2


@given(st.integers(0, 10**9))
def test_streams_are_long_enough_to_score(tokens: int) -> None:
    model = ModelConfig(id="m", n_layer=1, d_model=8, n_head=1, d_head=8, d_inner=8, vocab_size=9, tgt_len=8, mem_len=8)
    sizes = scoring_batches(model, tokens)
    assert sizes[0] == 1
    assert sizes[-1] <= MOST_STREAMS
    if sizes[-1] > 1:
        assert tokens / sizes[-1] >= SCORING_WINDOWS * 16


def test_run_of_a_checkpoint(scripted_plan: PlanFile, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000000005"
    checkpoint.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="in no run directory"):
        run_of(checkpoint)
    write_plan_file(tmp_path / "run" / "plan.toml", scripted_plan)
    assert run_of(checkpoint) == run_of(tmp_path / "run") == tmp_path / "run"


def test_workload_that_is_wrong_is_an_input_error(tiny_model: ModelConfig, data: Path) -> None:
    with pytest.raises(InputError, match="tokens = 0"):
        plan_request(request(tiny_model, data, tokens=0))
    assert Workload(model=tiny_model).tokens is None


def test_run_that_has_all_its_steps_is_not_started_again(
    worker: Callable[[str], None], scripted_plan: PlanFile, data: Path, make_estimate: Callable[..., Estimate]
) -> None:
    worker("""
        first = not (directory / "last").exists()
        start(step=0 if first else 2, total=3)
        for number in (1, 2) if first else (3,): step(number)
        (directory / "last").touch()
        tell(events.Saved(step=number, path=str(directory / "last")))
        finish("ok")
    """)
    planned = of_three_steps(scripted_plan, make_estimate())
    said: list[str] = []
    run_planned(planned, trials=False)
    whole = run_planned(planned, resume=True, say=said.append)
    assert whole.record is not None
    assert whole.record.step_s == (0.5,)
    assert not any("complete" in line for line in said)
    again = run_planned(planned, resume=True, say=said.append)
    assert again.record == whole.record
    assert said[-1] == "already complete: 3 of 3 steps"
    assert len(open_store().list()) == 2
    longer = run_planned(dataclasses.replace(planned, total_steps=4), resume=True)
    assert longer.record != whole.record


@pytest.mark.parametrize(("outcome", "left"), [("ok", 1), ("stopped", 1), ("failed", None)])
def test_a_run_that_can_go_on_tells_how_many_steps_are_left(
    worker: Callable[[str], None],
    scripted_plan: PlanFile,
    data: Path,
    make_estimate: Callable[..., Estimate],
    outcome: str,
    left: int | None,
) -> None:
    """Also where nobody said after how many it was to end."""
    worker(f"""
        start(total=3); step(1); step(2)
        finish({outcome!r})
    """)
    planned = of_three_steps(scripted_plan, make_estimate())
    assert run_planned(planned, trials=False).steps_left == left
