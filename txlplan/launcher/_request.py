"""From what a person asks for to a plan file: the workload, the plan for this machine, and where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from txlplan import resources
from txlplan.choices import AttentionPath, Precision, Task
from txlplan.cost import tokens_per_step
from txlplan.data import Dataset, open_dataset
from txlplan.engine.support import own_attention, own_attention_lacks
from txlplan.errors import CheckpointError, InputError
from txlplan.launcher._candidate import Candidate
from txlplan.launcher._machine import Machine, this_machine
from txlplan.launcher._prompts import longest_prompt
from txlplan.launcher._run_directory import PLAN_NAME
from txlplan.launcher._trials import MOST_TRIALS
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, Sampling, read_plan_file
from txlplan.planner import Choice, Space, recipe
from txlplan.planner import plan as choose_plan
from txlplan.records import new_id
from txlplan.workload import Optimization, Workload

DEFAULT_GENERATED_TOKENS = 300
SCORING_WINDOWS, MOST_STREAMS = 32, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What `txlplan run` was asked for without a plan file; None: for the planner, or a default, to say."""

    task: Task = "train"
    model: ModelConfig | None = None
    """None: that of the checkpoint."""
    data: Path | None = None
    """None: that of the checkpoint."""
    split: str | None = None
    tokens: int | None = None
    global_batch: int | None = None
    micro_batch: int | None = None
    precision: Precision | None = None
    attention: AttentionPath | None = None
    devices: int | None = None
    threads: int | None = None
    """CPU threads of a process."""
    runner: str | None = None
    directory: Path | None = None
    checkpoint: Path | None = None
    """Whose weights are scored, generate, or are where training begins; None: random ones (train only)."""
    seed: int = 1
    optimization: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Optimization that are not to be the defaults."""
    sampling: Sampling = field(default_factory=Sampling)
    compile_step: bool | None = None
    """Compile the step of generation, or train by graphs of kernels; None: the planner decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan file ready to run, and the plans that may yet be tried instead, the best (its own) first."""

    plan_file: PlanFile
    candidates: tuple[Candidate, ...]
    machine: Machine
    n_costed: int
    total_steps: int | None


def plan_request(request: RunRequest) -> Planned:
    """Plan a request for this machine.

    Raises InputError (and its kinds) for a model that does not match the data, and for anything missing; NoPlanFitsError.
    """
    model, directory = _model_and_data(request)
    dataset = open_dataset(directory)
    dataset.vocabulary.check(model.vocab_size)
    split = request.split or ("train" if request.task == "train" else _held_out(dataset))
    workload = _workload(request, model, dataset, split)
    machine = this_machine(request.devices)
    split_tokens = None if request.task == "generate" else dataset.split(split).tokens
    space = _space(request, workload, machine, split_tokens)
    choice = choose_plan(workload, machine.cluster, machine.stack, space=space, runners_up=MOST_TRIALS - 1)
    steps = total_steps(workload, choice.plan, split_tokens=split_tokens)
    if request.task == "train":
        workload = dataclasses.replace(workload, optimization=recipe(model, steps, **request.optimization))
    plan_file = PlanFile(
        system=machine.cluster.system.id,
        stack=machine.stack.id,
        workload=workload,
        plan=choice.plan,
        data=_data_settings(request, dataset, directory, split),
        run=_run_settings(request, machine, choice.plan.n_devices),
        sampling=request.sampling,
    )
    return Planned(
        plan_file=plan_file,
        candidates=_candidates(choice),
        machine=machine,
        n_costed=choice.n_costed,
        total_steps=steps,
    )


def run_of(checkpoint: Path) -> Path:
    """The run directory of a checkpoint: itself, or the one that holds it. Raises CheckpointError."""
    for directory in (checkpoint, *checkpoint.absolute().parents[:2]):
        if (directory / PLAN_NAME).is_file():
            return directory
    what = "no such directory" if not checkpoint.exists() else f"holds no {PLAN_NAME}, and is in no run directory"
    raise CheckpointError(f"{checkpoint}: {what}", hint="name a run directory; `txlplan records list` knows them")


def _model_and_data(request: RunRequest) -> tuple[ModelConfig, Path]:
    """As asked for; what was not said is that of the checkpoint."""
    model, data = request.model, request.data
    if request.checkpoint is not None:
        origin = read_plan_file(run_of(request.checkpoint) / PLAN_NAME)
        model, data = model or origin.workload.model, data or Path(origin.data.directory)
    elif request.task != "train":
        raise InputError(f"to {request.task}, say whose weights: --checkpoint RUN_DIRECTORY")
    if model is None or data is None:
        missing = "--model" if model is None else "--data"
        raise InputError(f"to {request.task}, say {missing}", hint="`txlplan run --help` has an example")
    return model, data


def _candidates(choice: Choice) -> tuple[Candidate, ...]:
    """The choice and its runners-up, without those that would change what is trained."""
    best = Candidate(plan=choice.plan, estimate=choice.estimate)
    rivals = (Candidate(plan=rival.plan, estimate=rival.estimate) for rival in choice.runners_up)
    return (best, *(rival for rival in rivals if rival.plan.global_batch == best.plan.global_batch))


def _data_settings(request: RunRequest, dataset: Dataset, directory: Path, split: str) -> DataSettings:
    evaluates = request.task == "train" and "valid" in dataset.manifest.splits
    return DataSettings(directory=str(directory.absolute()), split=split, evaluation_split="valid" if evaluates else None)


def _held_out(dataset: Dataset) -> str:
    return next((name for name in ("test", "valid") if name in dataset.manifest.splits), "train")


def _workload(request: RunRequest, model: ModelConfig, dataset: Dataset, split: str) -> Workload:
    tokens = request.tokens
    if tokens is None and request.task == "train":
        tokens = dataset.split(split).tokens
    if tokens is None and request.task == "generate":
        tokens = DEFAULT_GENERATED_TOKENS
    prompt_len = longest_prompt(request.sampling, model, dataset.vocabulary) if request.task == "generate" else 0
    rows = len(request.sampling.prompts) if request.task == "generate" else None
    if rows and request.global_batch and request.global_batch % rows:
        raise InputError(f"a batch of {request.global_batch} rows is no multiple of the {rows} prompts")
    return Workload(
        model=model,
        task=request.task,
        tokens=tokens,
        global_batch=request.global_batch or rows,
        optimization=recipe(model, None, **request.optimization) if request.task == "train" else Optimization(),
        prompt_len=prompt_len,
    )


def _space(request: RunRequest, workload: Workload, machine: Machine, split_tokens: int | None) -> Space:
    micro_batch: tuple[int, ...] | None = (request.micro_batch,) if request.micro_batch else None
    on_cpu = machine.device.kind == "cpu"
    asks_own_code = request.attention == "compiled" and on_cpu
    if asks_own_code and (lacking := own_attention_lacks(request.precision or "fp32", request.task)):
        raise InputError(f"attention = 'compiled': {lacking}", hint="--attention fast needs none")
    if request.task == "generate" and micro_batch is None and workload.global_batch:
        micro_batch = (workload.global_batch,)
    if split_tokens is not None and request.task == "score" and micro_batch is None and request.global_batch is None:
        micro_batch = scoring_batches(workload.model, split_tokens)
    return Space(
        runnable=True,
        precision=(request.precision,) if request.precision else None,
        attention=(request.attention,) if request.attention else None,
        micro_batch=micro_batch,
        data_parallel=(request.devices,) if request.devices else (1,) if request.task == "generate" else None,
        threads=_threads(request, machine),
        compile=request.compile_step,
        own_code=own_attention() if on_cpu else get_args(Precision),
    )


def scoring_batches(model: ModelConfig, split_tokens: int) -> tuple[int, ...]:
    """Numbers of streams that a split may be cut into without harm to its score: powers of two.

    Each stream begins without memory, so its first mem_len tokens are predicted worse: they are to be at most
    1/SCORING_WINDOWS of it.
    """
    most = split_tokens // (SCORING_WINDOWS * (model.tgt_len + model.mem_len))
    return tuple(2**power for power in range(min(max(1, most), MOST_STREAMS).bit_length()))


def _threads(request: RunRequest, machine: Machine) -> tuple[int, ...] | None:
    """As asked for; several processes on a CPU share its cores out evenly; else the planner tries numbers of threads."""
    if request.threads is not None:
        return (_checked_threads(request.threads, machine),)
    if machine.backend != "cpu" or request.devices is None or request.devices == 1:
        return None
    return (max(1, machine.device.cores // request.devices),)


def _checked_threads(threads: int, machine: Machine) -> int:
    if machine.backend != "cpu":
        raise InputError(f"threads = {threads} have no effect on {machine.device.name}", hint="leave --threads out")
    if threads > machine.device.cores:
        raise InputError(f"threads = {threads}: {machine.device.name} has {machine.device.cores} cores for a process")
    return threads


def total_steps(workload: Workload, plan: Plan, *, split_tokens: int | None = None) -> int | None:
    """Steps of a run, as the worker counts them; None where neither the workload nor the split says how long it is."""
    tokens = workload.tokens or split_tokens
    return None if tokens is None else -(-tokens // tokens_per_step(workload, plan))


def _run_settings(request: RunRequest, machine: Machine, n_devices: int) -> RunSettings:
    return RunSettings(
        directory=str(request.directory or resources.user_data() / "runs" / new_id()),
        runner=request.runner or ("local" if n_devices == 1 else "torchrun"),
        device=machine.backend,
        seed=request.seed,
        checkpoint=str(request.checkpoint.absolute()) if request.checkpoint else None,
    )
