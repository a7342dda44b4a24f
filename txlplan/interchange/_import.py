"""`import_model`: a model of another program becomes a run directory with one checkpoint, whole or not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from txlplan.data import write_vocabulary_set
from txlplan.engine import checkpoint
from txlplan.interchange._convert import converted
from txlplan.interchange._layouts import Layout
from txlplan.interchange._output import new_directory
from txlplan.interchange._source import read_source
from txlplan.interchange._vocabulary import read_vocabulary
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, write_plan_file
from txlplan.workload import Workload

PLAN_NAME, DATA_DIRECTORY = "plan.toml", "data"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What came in."""

    directory: Path
    """A run directory: plan.toml, data/ (the vocabulary) and checkpoints/."""
    layout: Layout | None
    """Whose names the tensors had; None: ours."""
    model: ModelConfig
    vocabulary_kind: str
    vocabulary_size: int


def import_model(source: Path, output: Path, *, model: ModelConfig | None = None, vocabulary: str | None = None) -> Imported:
    """Make `output` of a state dict or model directory, for `txlplan run --task score|generate --checkpoint OUTPUT`.

    `model` replaces the configuration of the source, which bare state dicts lack; `vocabulary` is `bytes`, or a file or data
    set, and else looked for beside the source. Raises CheckpointError (every tensor that is wrong, by name) and DataError.
    """
    with new_directory(output) as partial:
        found = read_source(source, model)
        symbols = read_vocabulary(vocabulary, source)
        symbols.check(found.config.vocab_size)
        weights = converted(found.path, found.state, found.config, found.layout)
        write_vocabulary_set(partial / DATA_DIRECTORY, symbols)
        checkpoint.save_weights(partial, found.config, weights)
        write_plan_file(partial / PLAN_NAME, _plan_file(found.config, output.absolute()))
    return Imported(
        directory=output,
        layout=found.layout,
        model=found.config,
        vocabulary_kind=symbols.kind,
        vocabulary_size=symbols.size,
    )


def _plan_file(config: ModelConfig, directory: Path) -> PlanFile:
    """Says of which model and vocabulary the checkpoint is; a run plans anew, for its own machine."""
    return PlanFile(
        system="local-cpu",
        stack="local",
        workload=Workload(model=config),
        plan=Plan(micro_batch=1),
        data=DataSettings(directory=str(directory / DATA_DIRECTORY)),
        run=RunSettings(directory=str(directory)),
    )
