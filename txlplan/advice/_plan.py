"""`txlplan.plan`: from names to the best plan, and to the file that runs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from txlplan import planner
from txlplan.advice._offers import LOCAL, shared_by
from txlplan.advice._proposal import Proposal
from txlplan.advice._workload import workload_of
from txlplan.choices import AttentionPath, Objective, Precision, Task
from txlplan.config import parse_toml
from txlplan.config._schema import STRICT
from txlplan.cost import tokens_per_step
from txlplan.engine.support import own_attention, own_attention_lacks
from txlplan.errors import InputError
from txlplan.model import ModelConfig, models
from txlplan.plan_file import DataSettings, PlanFile, RunSettings
from txlplan.planner import Candidate, Choice
from txlplan.units import COUNT, DURATION, USD, WATTS
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a plan is to be found for, in names."""

    __pydantic_config__ = STRICT

    model: str
    """Id of a model profile, or a .toml file."""
    system: str = LOCAL
    """Id of a system or a device, a .toml file, or `local`: this machine."""
    nodes: int = 1
    devices: int | None = None
    """In all; None: every one."""
    stack: str | None = None
    """None: the system's own."""
    task: Task = "train"
    tokens: Annotated[int, COUNT] | None = None
    """To train on, score or generate; None: one pass of the data, where some is named."""
    global_batch: int | str | None = None
    """Sequences per step, or a range: `64..256`, or `64..`, which ends at the largest published; None: the published one."""
    objective: Objective = "fastest"
    deadline_s: Annotated[float, DURATION] | None = None
    budget_usd: Annotated[float, USD] | None = None
    max_power_w: Annotated[float, WATTS] | None = None
    memory_headroom: float | None = None
    """Share of a device's usable memory that a plan must leave free; None: a twentieth."""
    without: tuple[str, ...] = ()
    """What is not to be used: tensor-parallel, zero, offload, …"""
    precision: Precision | None = None
    micro_batch: int | None = None
    attention: AttentionPath | None = None
    """How attention is computed; None: as is best."""
    runnable: bool = False
    """Only plans that this version runs."""
    data: str | None = None
    """A directory that `txlplan data prepare` wrote."""
    run_dir: str = "runs/run"
    """Where the run will keep its files."""
    checkpoint: str | None = None
    """Weights to score or generate with."""


def plan(*, explain: bool = False, **options: Any) -> Proposal:
    """Find the best plan for a model on a system: `plan(model="nvidia-wt103-base", system="dgx-1", tokens="1.8e9")`.

    `options` are the keys of a Question: those of `txlplan plan`, with text where a unit is needed (`deadline="3 d"`). With
    `explain` the answer says why other values of each setting were not chosen.
    Raises InputError (ConfigError, DataError) for wrong input, NoPlanFitsError where no plan fits or meets the limits.
    """
    asked = parse_toml(Question, {key: _plain(value) for key, value in options.items() if value is not None}, "plan")
    target, processes = shared_by(asked.system, asked.task, n_nodes=asked.nodes, n_devices=asked.devices, stack=asked.stack)
    data, workload = _with_data(asked, _workload(asked))
    space = _space(asked, workload.task, target)
    space = replace(space, data_parallel=(processes,) if processes > target.cluster.n_devices else None)
    space, choice = _chosen(workload, target, space, explain=explain)
    surer = planner.surer_plan(workload, target.cluster, target.stack, space, choice)
    plan_file = _plan_file(asked, target, _settled(workload, choice), choice, data)
    return Proposal(target=target, choice=choice, surer=surer, plan_file=plan_file)


def _chosen(workload: Workload, target: Candidate, space: planner.Space, *, explain: bool) -> tuple[planner.Space, Choice]:
    """The best plan, and the space it was found in.

    For least energy, where nobody knows what idle devices draw, that of plans that leave none of a node idle, if there are any.
    """
    if workload.objective == "least-energy" and target.cluster.device.power_idle_w is None:
        choice = planner.whole_node_plan(workload, target.cluster, target.stack, space, explain=explain)
        return replace(space, whole_nodes=choice.plan.n_devices % target.cluster.per_node == 0), choice
    return space, planner.plan(workload, target.cluster, target.stack, space=space, explain=explain)


def _plain(value: Any) -> Any:
    """As TOML has it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _workload(asked: Question) -> Workload:
    first, last = _batches(asked.global_batch, models.get(asked.model))
    return workload_of(
        asked.model,
        asked.task,
        tokens=asked.tokens,
        global_batch=first,
        largest_global_batch=last,
        objective=asked.objective,
        deadline_s=asked.deadline_s,
        budget_usd=asked.budget_usd,
        power_cap_w=asked.max_power_w,
        memory_headroom=asked.memory_headroom,
    )


def _batches(asked: int | str | None, model: ModelConfig) -> tuple[int | None, int | None]:
    """`256`, `64..256` or `64..`: first and largest; what a published run ends an open range with. Raises InputError."""
    if not isinstance(asked, str):
        return asked, None
    first, dots, last = asked.partition("..")
    known = model.largest_published_batch or model.published_batch
    if dots and not last and known is None:
        raise InputError(f"global_batch {asked}: {model.id} has no published batch that ends it", hint="write its end: 64..256")
    try:
        least, most = int(first), (int(last) if last else known) if dots else None
    except ValueError:
        raise InputError(f"global_batch {asked!r} is neither a number nor a range", hint="write 256, or 64..256") from None
    if most is not None and most < least:
        raise InputError(f"global_batch {asked}: its end, {most}, is less than {least}", hint="a range goes up: 64..256")
    return least, most


def _with_data(asked: Question, workload: Workload) -> tuple[DataSettings, Workload]:
    """What is read, and the workload with its length. Where no data is named, none is looked for.

    Raises DataError for data that is not there, or that the model cannot take.
    """
    training = asked.task == "train"
    settings = DataSettings(directory=str(Path(asked.data or "data").absolute()), split="train" if training else "test")
    if asked.data is None:
        return settings, workload
    from txlplan.data import open_dataset  # (a tenth of a second, and most plans are asked for without data)

    dataset = open_dataset(Path(asked.data))
    dataset.vocabulary.check(workload.model.vocab_size)
    if training and "valid" in dataset.manifest.splits:
        settings = replace(settings, evaluation_split="valid")
    if training and workload.tokens is None:
        workload = replace(workload, tokens=dataset.split("train").tokens)
    return settings, workload


def _space(asked: Question, task: Task, target: Candidate) -> planner.Space:
    """What this machine cannot compute is in none for it."""
    space = planner.Space(
        runnable=asked.runnable,
        precision=(asked.precision,) if asked.precision else None,
        micro_batch=(asked.micro_batch,) if asked.micro_batch is not None else None,
        attention=(asked.attention,) if asked.attention else None,
    )
    lacking = None
    if target.cluster.system.id == f"{LOCAL}-cpu":
        space, lacking = replace(space, own_code=own_attention()), own_attention_lacks(asked.precision or "fp32", task)
    space = planner.without(space, asked.without)
    if asked.attention == "compiled" and (lacking or not space.own_code):
        raise InputError(f"attention = 'compiled': {lacking or 'it is not to be used'}", hint="--attention fast needs none")
    return space


def _settled(workload: Workload, choice: Choice) -> Workload:
    """The workload with what the plan settles: the batch of a range, and the schedule of so many steps."""
    if workload.largest_global_batch is not None:
        workload = replace(workload, global_batch=choice.plan.global_batch, largest_global_batch=None)
    if workload.task != "train" or workload.tokens is None:
        return workload
    steps = -(-workload.tokens // tokens_per_step(workload, choice.plan))
    return replace(workload, optimization=planner.recipe(workload.model, steps))


def _plan_file(asked: Question, target: Candidate, workload: Workload, choice: Choice, data: DataSettings) -> PlanFile:
    return PlanFile(
        system=target.cluster.system.id,
        stack=target.stack.id,
        workload=workload,
        plan=choice.plan,
        data=data,
        run=RunSettings(
            directory=str(Path(asked.run_dir).absolute()),
            runner="local" if choice.plan.n_devices == 1 else "torchrun",
            device="cuda" if target.cluster.device.kind == "gpu" else "cpu",
            checkpoint=None if asked.checkpoint is None else str(Path(asked.checkpoint).absolute()),
        ),
    )
