"""Published runs from a CSV file: what was run, as the cost model takes it, and what was measured.

The columns are described in profiles/measurements/README.md.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar, get_args

from txlplan.choices import OptimizerName, Precision, Task
from txlplan.errors import InputError, TxlplanError
from txlplan.hardware import Cluster, StackProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.validation._clusters import Clusters
from txlplan.workload import Optimization, Workload

N = TypeVar("N", int, float)
_MIB = 2**20
_CLIP_NORM = 0.25
"""Of every published training run."""
_COLUMNS = (
    "id",
    "stack",
    "device",
    "system",
    "interconnect",
    "n_devices",
    "n_nodes",
    "mode",
    "model",
    "n_layer",
    "d_model",
    "d_embed",
    "n_head",
    "d_head",
    "d_inner",
    "vocab_size",
    "cutoffs",
    "div_val",
    "tgt_len",
    "mem_len",
    "clamp_len",
    "same_length",
    "dropout",
    "dropatt",
    "optimizer",
    "gradient_sync",
    "precision",
    "micro_batch_size",
    "grad_accum_steps",
    "tokens_per_s",
    "peak_memory_mib",
    "context_memory_mib",
    "fits",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One run. `tokens_per_s` is of all devices together."""

    id: str
    workload: Workload
    cluster: Cluster
    plan: Plan
    stack_name: str
    """As published: a version that may have no profile."""
    gradient_sync: Literal["ddp", "none"]
    context_bytes: int | None
    tokens_per_s: float | None
    peak_memory_bytes: float | None
    fits: bool

    def stack(self, profile: StackProfile) -> StackProfile:
        """The profile as this run had it: its gradients exchanged or not, its driver's context."""
        sync = profile.gradient_sync
        if self.gradient_sync == "none":
            sync = "none"
        elif sync == "none":
            sync = "micro-batch"
        return replace(profile, gradient_sync=sync, context_bytes=self.context_bytes or profile.context_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A row that says nothing the cost model can take, and why."""

    id: str
    reason: str


def read_published(path: Path) -> list[Published | Unreadable]:
    """Every row of a file. Raises InputError where the file, or a column of it, is missing."""
    if not path.is_file():
        raise InputError(f"{path} is not a file", hint="a CSV file with the columns of profiles/measurements/README.md")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = reader.fieldnames or (), list(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}", hint="save it as UTF-8") from None
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}", hint=f"columns: {', '.join(_COLUMNS)}")
    clusters = Clusters()
    return [_read(row, number, clusters) for number, row in enumerate(rows, start=2)]


def _read(row: Mapping[str, str], line: int, clusters: Clusters) -> Published | Unreadable:
    name = row["id"] or f"line {line}"
    try:
        return _published(row, name, clusters)
    except (TxlplanError, ValueError) as error:
        return Unreadable(id=name, reason=str(error))


def _published(row: Mapping[str, str], name: str, clusters: Clusters) -> Published:
    n_devices = _number(row, "n_devices", int)
    mode = row["mode"]
    if mode not in get_args(Task):
        raise InputError(f"mode {mode!r} is not one of {', '.join(get_args(Task))}")
    if row["precision"] not in get_args(Precision):
        raise InputError(f"precision {row['precision']!r} is not one of {', '.join(get_args(Precision))}")
    optimizer = row["optimizer"] or "adam"
    if optimizer not in get_args(OptimizerName):
        raise InputError(f"optimizer {optimizer!r} is not one of {', '.join(get_args(OptimizerName))}")
    return Published(
        id=name,
        workload=Workload(
            model=_model(row),
            task=mode,  # type: ignore[arg-type]
            optimization=Optimization(optimizer=optimizer, clip_norm=_CLIP_NORM),  # type: ignore[arg-type]
            memory_headroom=0.0,
        ),
        cluster=clusters.of(row["device"], row["system"], row["interconnect"], n_devices, _number(row, "n_nodes", int)),
        plan=Plan(
            micro_batch=_number(row, "micro_batch_size", int),
            accumulation=_number(row, "grad_accum_steps", int),
            precision=row["precision"],  # type: ignore[arg-type]
            data_parallel=n_devices,
            compile=row.get("compile") == "1",
        ),
        stack_name=row["stack"],
        gradient_sync="ddp" if row["gradient_sync"] == "ddp" else "none",
        context_bytes=_optional(row, "context_memory_mib", _MIB),
        tokens_per_s=float(row["tokens_per_s"]) if row["tokens_per_s"] else None,
        peak_memory_bytes=_optional(row, "peak_memory_mib", _MIB),
        fits=row["fits"] != "0",
    )


def _model(row: Mapping[str, str]) -> ModelConfig:
    cutoffs = tuple(int(word) for word in row["cutoffs"].split(";") if word)
    clamp = _number(row, "clamp_len", int)
    return ModelConfig(
        id=row["model"],
        n_layer=_number(row, "n_layer", int),
        d_model=_number(row, "d_model", int),
        n_head=_number(row, "n_head", int),
        d_head=_number(row, "d_head", int),
        d_inner=_number(row, "d_inner", int),
        vocab_size=_number(row, "vocab_size", int),
        d_embed=_number(row, "d_embed", int),
        cutoffs=cutoffs,
        div_val=_number(row, "div_val", int),
        tie_projections=(False, *(True for _ in cutoffs)) if cutoffs else (),
        tgt_len=_number(row, "tgt_len", int),
        mem_len=_number(row, "mem_len", int),
        clamp_len=clamp if clamp > 0 else None,
        same_length=row["same_length"] not in ("0", ""),
        dropout=_number(row, "dropout", float),
        dropatt=_number(row, "dropatt", float),
        untie_r=row.get("untie_r") == "1",
        norm="pre" if row.get("norm") == "pre" else "post",
    )


def _number(row: Mapping[str, str], column: str, kind: Callable[[str], N]) -> N:
    try:
        return kind(row[column])
    except ValueError:
        raise InputError(f"{column} = {row[column]!r} is not a number") from None


def _optional(row: Mapping[str, str], column: str, factor: int) -> int | None:
    return int(_number(row, column, float) * factor) if row[column] else None
