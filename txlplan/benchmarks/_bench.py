"""Run a benchmark: interleaved repeats, each a worker process and a record of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from txlplan import files, resources
from txlplan.benchmarks import _stability
from txlplan.benchmarks._matrix import Case, Matrix, cases, read_matrix
from txlplan.benchmarks._plan_files import Preparation
from txlplan.benchmarks._summary import Row, belongs, summarise
from txlplan.config import to_toml
from txlplan.errors import InputError
from txlplan.estimates import Estimate
from txlplan.launcher import OnEvent, clear, execute
from txlplan.records import Record, open_store

MATRIX_NAME = "bench.toml"
FAILURES = ("oom", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One run that is to be made: the `number`-th of its case; `position` of `total` in the whole benchmark."""

    case: Case
    number: int
    position: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A finished (or stopped) benchmark."""

    id: str
    directory: Path
    matrix: Matrix
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    stopped: bool


OnRepeat = Callable[[Repeat, Estimate], OnEvent | None]
"""Told of a repeat before it starts; gives what is to see its events."""


def directory_of(bench_id: str) -> Path:
    """Where a benchmark keeps its matrix, references and run directories."""
    return resources.user_data() / "benches" / bench_id


def create(bench_id: str, matrix: Matrix) -> None:
    """Store what is to be run, so that a benchmark that was killed can be resumed by its id.

    Raises InputError, and stores nothing, where a case cannot be estimated on this machine.
    """
    preparation = Preparation(bench_id=bench_id, directory=directory_of(bench_id), matrix=matrix)
    for case in cases(matrix, cores=preparation.cores):
        preparation.estimate(case)
    files.write_text(directory_of(bench_id) / MATRIX_NAME, to_toml(matrix))


def stored_matrix(bench_id: str) -> Matrix:
    """The matrix of a benchmark that was started before. Raises InputError for an unknown id."""
    path = directory_of(bench_id) / MATRIX_NAME
    if not path.is_file():
        known = sorted(found.parent.name for found in path.parent.parent.glob(f"*/{MATRIX_NAME}"))
        raise InputError(f"no benchmark {bench_id!r}", hint=f"the latest: {', '.join(known[-5:])}" if known else None)
    return read_matrix(path)


def run_bench(bench_id: str, matrix: Matrix, *, on_repeat: OnRepeat | None = None) -> Bench:
    """Run what is missing of a benchmark that `create` stored.

    Repeats are interleaved over the cases (A B A B …), so that a drift of the machine meets all cases alike. A case that
    fails is not repeated in this call; one that ran out of memory in no later one. Records have the kind `bench` and the
    benchmark's id as their parent. SIGINT stops the repeat at work and ends the benchmark.
    """
    directory, store = directory_of(bench_id), open_store()
    store.close_interrupted()
    preparation = Preparation(bench_id=bench_id, directory=directory, matrix=matrix)
    planned = cases(matrix, cores=preparation.cores)
    records = store.list(kind="bench", parent=bench_id)[::-1]
    given_up: list[Case] = []
    stopped = False
    for repeat in missing(planned, matrix.repeats, records):
        if repeat.case in given_up:
            continue
        record = _run(preparation, repeat, on_repeat)
        records.append(record)
        if record.outcome in FAILURES:
            given_up.append(repeat.case)
        stopped = record.outcome == "stopped"
        if stopped:
            break
    return Bench(
        id=bench_id,
        directory=directory,
        matrix=matrix,
        rows=summarise(planned, records),
        notes=_stability.notes(_stability.kept(directory)),
        stopped=stopped,
    )


def missing(planned: Sequence[Case], repeats: int, records: Sequence[Record]) -> list[Repeat]:
    """The runs that `records` lack, interleaved; a case that once ran out of memory lacks none."""
    found = []
    for number in range(1, repeats + 1):
        for index, case in enumerate(planned):
            outcomes = [record.outcome for record in records if belongs(record, case)]
            if "oom" not in outcomes and outcomes.count("ok") < number:
                position = (number - 1) * len(planned) + index + 1
                found.append(Repeat(case=case, number=number, position=position, total=repeats * len(planned)))
    return found


def _run(preparation: Preparation, repeat: Repeat, on_repeat: OnRepeat | None) -> Record:
    """One repeat, on a machine that is looked at before. What it wrote besides its record and log is removed."""
    plan_file, estimate = preparation.plan_file(repeat.case, repeat.position), preparation.estimate(repeat.case)
    directory = Path(plan_file.run.directory)
    clear(directory)
    _stability.keep(preparation.directory, _stability.measure())
    record = execute(
        plan_file,
        estimate=estimate,
        kind="bench",
        parent=preparation.bench_id,
        steps=preparation.matrix.steps + preparation.matrix.warmup_steps,
        on_event=on_repeat(repeat, estimate) if on_repeat else None,
        device=preparation.machine(repeat.case).device,
    )
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return record
