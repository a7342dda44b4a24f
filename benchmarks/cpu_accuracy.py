"""How good predictions of this CPU are: probe it, predict random configurations, measure them, calibrate, predict again.

    python benchmarks/cpu_accuracy.py --directory build/cpu-accuracy

24 configurations are held out, and 8 others are what `txlplan calibrate` may see; 6 more, held out too, generate by compiled
code with small models. All are measured by the machinery of `txlplan bench`, in rounds (A B C … A B C …), with a fixed matrix
product before and after each, so that a machine which drifts is seen to: each error is given raw, and corrected by how much
slower the product ran than while probing.

Whatever was measured is kept in the directory, also where the command is cut off: the same call goes on. Estimates are always
made anew, with the profiles that are there; `--probe` replaces them. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import typer
from _cpu_cases import Drawn, drawn, drawn_compiled
from _cpu_scores import repeatability, results, shown

from txlplan import detection, files
from txlplan.benchmarks import create, reference, run_bench
from txlplan.config import from_plain, to_plain, to_toml
from txlplan.hardware import StackProfile, stacks
from txlplan.launcher import this_machine
from txlplan.records import open_store

HELD_OUT, FITTED, COMPILED = "held-out", "fitted", "compiled"
SIZES = {HELD_OUT: 24, FITTED: 8, COMPILED: 6}
_RUNS, _PROBED = "runs.jsonl", "probe.json"
_REFERENCE_EVERY_S = 4.0
_DISTURBED = 1.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One repeat of one configuration."""

    name: str
    record: str
    """Id of its record."""
    reference_s: float
    """Of the fixed product, about the run: the mean of before and after."""


def main(
    directory: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("build/cpu-accuracy"),
    repeats: Annotated[int, typer.Option(help="Runs of each configuration.")] = 2,
    seconds: Annotated[float, typer.Option(help="Begin nothing after so long; the same call goes on.")] = 1e9,
    seed: Annotated[int, typer.Option(help="Of the configurations.")] = 1,
    probe: Annotated[bool, typer.Option("--probe", help="Probe again, also where that was done.")] = False,
) -> None:
    """Go on from what is there, then say how good the predictions are."""
    end_s = time.monotonic() + seconds
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    os.environ |= {"XDG_CONFIG_HOME": str(directory / "config"), "XDG_DATA_HOME": str(directory / "data")}
    os.environ.pop("TXLPLAN_PROFILES", None)
    if probe or not (directory / _PROBED).exists():
        _probe(directory)
    sets = {name: (drawn_compiled if name == COMPILED else drawn)(seed, size, name) for name, size in SIZES.items()}
    complete = _measure(directory, sets, repeats, end_s)
    found = _scored(directory, sets)
    if not complete:
        say(f"cut off with {len(_runs(directory))} of {repeats * sum(SIZES.values())} runs: the same call goes on")
    print(json.dumps(found | {"complete": complete}))


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def _probe(directory: Path) -> None:
    """Probe, with the fixed product time and again meanwhile, and keep its profiles where nothing else looks for them."""
    say("probing, up to a minute")
    seconds, last_s = [reference().product_s], time.monotonic()

    def progress(_what: str, _share: float) -> None:
        nonlocal last_s
        if time.monotonic() > last_s + _REFERENCE_EVERY_S:
            seconds.append(reference().product_s)
            last_s = time.monotonic()

    result = detection.probe(progress)
    detection.write_profiles(result)
    for note in result.notes:
        say(f"note: {note}")
    told = {"product_s": median(seconds), "products_s": seconds, "took_s": result.took_s, "notes": result.notes}
    files.write_text(directory / _PROBED, json.dumps(told))


def _measure(directory: Path, sets: dict[str, list[Drawn]], repeats: int, end_s: float) -> bool:
    """What is missing, round by round; False where the time was over before all was measured."""
    every = [(name, each) for name, several in sets.items() for each in several]
    done = [run.name for run in _runs(directory)]
    for number in range(1, repeats + 1):
        for place, (name, each) in enumerate(every, start=1):
            if done.count(each.name) >= number:
                continue
            if time.monotonic() > end_s:
                return False
            shape = f"{each.model.n_layer} layers of {each.model.d_model}, batch {each.batch}"
            say(f"[{number}.{place:02d}/{len(every)}] {each.name}: {each.task} {each.precision}, {shape}")
            _keep(directory, _run(directory, name, each, number))
    return True


def _run(directory: Path, name: str, each: Drawn, number: int) -> Run:
    """The `number`-th repeat of a configuration. Raises SystemExit where it fails."""
    os.environ["TXLPLAN_STORE"] = _store(directory, name)
    path = directory / "models" / f"{each.name}.toml"
    files.write_text(path, to_toml(each.model))
    matrix = each.matrix(str(path), number)
    create(each.name, matrix)
    before = reference()
    run_bench(each.name, matrix)
    after = reference()
    newest = open_store().list(kind="bench", parent=each.name)[0]
    if newest.outcome != "ok":
        raise SystemExit(f"{each.name}: {newest.outcome} {newest.message}")
    return Run(name=each.name, record=newest.id, reference_s=fmean([before.product_s, after.product_s]))


def _store(directory: Path, name: str) -> str:
    """Records that may be fitted lie apart from those that are held out."""
    return str(directory / f"{name}.db")


def _runs(directory: Path) -> list[Run]:
    """What was measured; a run about which the fixed product took far longer than usual was disturbed, and is made again."""
    path = directory / _RUNS
    if not path.exists():
        return []
    lines = path.read_bytes()[: files.whole_lines_bytes(path)].decode().splitlines()
    found = [from_plain(Run, json.loads(line), str(path)) for line in lines]
    usual_s = median(run.reference_s for run in found) if found else 0.0
    return [run for run in found if run.reference_s <= _DISTURBED * usual_s]


def _keep(directory: Path, run: Run) -> None:
    files.cut_unfinished_line(directory / _RUNS)
    with (directory / _RUNS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(to_plain(run)) + "\n")


def _scored(directory: Path, sets: dict[str, list[Drawn]]) -> dict[str, Any]:
    """Errors of the probe's profiles on both sets, and of the calibrated stack on those that were held out."""
    machine, runs = this_machine(), _runs(directory)
    product_s = json.loads((directory / _PROBED).read_text())["product_s"]

    def score(name: str, stack: StackProfile, title: str) -> dict[str, Any]:
        store = open_store(_store(directory, name))
        mine = {
            each.name: [(store.get(run.record), run.reference_s) for run in runs if run.name == each.name]
            for each in sets[name]
        }
        apart = repeatability(mine)
        return {"repeats apart": apart} | shown(title, results(mine, machine.cluster, stack, product_s), apart)

    found = {"after probe": score(HELD_OUT, machine.stack, "held out, after the probe alone")}
    found["compiled, after probe"] = score(COMPILED, machine.stack, "held out, compiled, after the probe alone")
    found["fitted, before"] = score(FITTED, machine.stack, "to be fitted, after the probe alone")
    calibrated = _calibrated(directory)
    if calibrated is not None:
        found["after calibrate"] = score(HELD_OUT, calibrated, "held out, after calibrate")
        found["compiled, after calibrate"] = score(COMPILED, calibrated, "held out, compiled, after calibrate")
    return found


def _calibrated(directory: Path) -> StackProfile | None:
    """By the command, on what is there of the other configurations; None where it refuses, which it explains."""
    path = directory / "calibrated.toml"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "txlplan", "calibrate", "store", "--out", str(path)]
    told = subprocess.run(
        command, env=os.environ | {"TXLPLAN_STORE": _store(directory, FITTED)}, check=False, capture_output=True
    )
    say((told.stdout + told.stderr).decode())
    return stacks.get(str(path)) if path.exists() else None


if __name__ == "__main__":
    typer.run(main)
