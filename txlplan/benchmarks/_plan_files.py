"""What a benchmark's runs need before they start: machines, data, weights, estimates, plan files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from txlplan.benchmarks._matrix import Case, Matrix
from txlplan.benchmarks._synthetic import synthetic_data
from txlplan.cost import estimate
from txlplan.data import open_dataset
from txlplan.engine import events
from txlplan.errors import RunFailedError
from txlplan.estimates import Estimate
from txlplan.launcher import Machine, execute, this_machine
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, Sampling
from txlplan.workload import Optimization, Workload


@dataclass(kw_only=True, slots=True)
class Preparation:
    """Prepares each thing once."""

    bench_id: str
    directory: Path
    matrix: Matrix
    _machines: dict[int, Machine] = field(default_factory=dict)

    @property
    def cores(self) -> int | None:
        """Of the whole machine where it computes on its CPU; None on GPUs."""
        machine = this_machine()
        return machine.device.cores if machine.backend == "cpu" else None

    def machine(self, case: Case) -> Machine:
        """The part of this machine that a case uses."""
        devices = case.plan.n_devices
        if devices not in self._machines:
            self._machines[devices] = this_machine(devices)
        return self._machines[devices]

    def estimate(self, case: Case) -> Estimate:
        """What is predicted of a case."""
        machine = self.machine(case)
        return estimate(self._workload(case), machine.cluster, machine.stack, (case.plan,))[0]

    def plan_file(self, case: Case, position: int) -> PlanFile:
        """The plan file of one repeat, in a directory of its own."""
        weights = None if self.matrix.task == "train" else str(self._weights(case.model))
        name = f"{position:03d}-{case.model.id}"
        return self._plan_file(case, self._workload(case), self.directory / "runs" / name, weights)

    def _plan_file(self, case: Case, workload: Workload, directory: Path, weights: str | None) -> PlanFile:
        machine, data = self.machine(case), self._data(case.model)
        return PlanFile(
            system=machine.cluster.system.id,
            stack=machine.stack.id,
            workload=workload,
            plan=case.plan,
            data=DataSettings(directory=str(data), split="train"),
            sampling=Sampling(prompt=_full_memory(case.model)) if workload.task == "generate" else Sampling(),
            run=RunSettings(
                directory=str(directory),
                runner="local" if case.plan.n_devices == 1 else "torchrun",
                device=machine.backend,
                seed=self.matrix.seed,
                checkpoint_every_steps=10**9,
                warmup_steps=self.matrix.warmup_steps,
                checkpoint=weights,
            ),
        )

    def _workload(self, case: Case) -> Workload:
        """Long enough for every step, warm-up included."""
        per_sequence = 1 if self.matrix.task == "generate" else case.model.tgt_len
        steps = self.matrix.steps + self.matrix.warmup_steps
        batch = case.plan.global_batch
        return Workload(
            model=case.model,
            task=self.matrix.task,
            tokens=batch * per_sequence * steps,
            global_batch=batch,
            optimization=Optimization(clip_norm=0.25),
            prompt_len=len(_full_memory(case.model)) if self.matrix.task == "generate" else 0,
        )

    def _data(self, model: ModelConfig) -> Path:
        if self.matrix.data is None:
            return synthetic_data(model.vocab_size)
        directory = Path(self.matrix.data)
        open_dataset(directory).vocabulary.check(model.vocab_size)
        return directory

    def _weights(self, model: ModelConfig) -> Path:
        """A run directory with weights of the model: one training step from random ones."""
        directory = self.directory / "weights" / model.id
        told, _ = events.read(directory / events.FILE_NAME)
        if any(isinstance(event, events.Saved) for event in told):
            return directory
        plan = Plan(micro_batch=1)
        case = Case(model=model, plan=plan)
        workload = Workload(model=model, tokens=model.tgt_len, global_batch=1)
        plan_file = self._plan_file(case, workload, directory, None)
        plan_file = dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, checkpoint_every_steps=1))
        machine = self.machine(case)
        predicted = estimate(workload, machine.cluster, machine.stack, (plan,))[0]
        record = execute(
            plan_file, estimate=predicted, kind="trial", parent=self.bench_id, resume=True, steps=1, device=machine.device
        )
        if record.outcome != "ok":
            raise RunFailedError(f"weights of {model.id} could not be made: {record.message}")
        return directory


def _full_memory(model: ModelConfig) -> str:
    """A prompt of a token a character, after which each token costs what is predicted of it: with all of the memory to read."""
    return "\n" * max(1, model.mem_len)
