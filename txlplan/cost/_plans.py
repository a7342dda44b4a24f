"""Plans as a struct of arrays: one column a setting, so that a million plans are a few megabytes and no objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, overload

import numpy as np
import numpy.typing as npt

from txlplan.choices import Checkpointing, Offload, Precision, StatePrecision
from txlplan.plan_file import Plan

IntArray = npt.NDArray[np.int64]
NAMES: dict[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "activation_checkpointing": get_args(Checkpointing),
    "optimizer_precision": get_args(StatePrecision),
    "offload": get_args(Offload),
    "attention": ("fast", "reference", "compiled"),
}
"""Settings that are names, the default first: a column holds the place of the name."""
NUMBERS: dict[str, int] = {
    "micro_batch": 1,
    "accumulation": 1,
    "data_parallel": 1,
    "tensor_parallel": 1,
    "pipeline_parallel": 1,
    "virtual_stages": 1,
    "context_parallel": 1,
    "zero_stage": 0,
    "checkpointed_layers": 0,
    "threads": 0,
    "compile": 0,
}
"""Settings that are numbers, and what stands for a default; 0 is `None` of checkpointed_layers and of threads."""
COLUMNS = (*NUMBERS, *NAMES)
_OPTIONAL = ("checkpointed_layers", "threads")


@dataclass(frozen=True, slots=True)
class Plans(Sequence[Plan]):
    """Plans by column, each [candidates]. Indexing makes the one `Plan` that is asked for."""

    columns: Mapping[str, npt.NDArray[np.int32] | IntArray]

    @classmethod
    def of(cls, plans: Iterable[Plan]) -> Plans:
        """From objects."""
        if isinstance(plans, Plans):
            return plans
        rows = [tuple(_code(name, getattr(plan, name)) for name in COLUMNS) for plan in plans]
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(COLUMNS))
        return cls(dict(zip(COLUMNS, np.ascontiguousarray(table.T), strict=True)))

    @classmethod
    def from_columns(cls, size: int, **columns: Any) -> Plans:
        """From arrays or numbers (names by their place in `NAMES`); what is not given has its default."""
        defaults = {**NUMBERS, **dict.fromkeys(NAMES, 0)}
        return cls(
            {
                name: np.ascontiguousarray(np.broadcast_to(np.asarray(columns.get(name, defaults[name]), np.int32), size))
                for name in COLUMNS
            }
        )

    @classmethod
    def joined(cls, parts: Sequence[Plans]) -> Plans:
        """One after another."""
        return cls({name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS})

    def __getattr__(self, name: str) -> IntArray:
        """The column of a setting, e.g. `plans.micro_batch`."""
        if name not in COLUMNS:
            raise AttributeError(name)
        return self.columns[name].astype(np.int64, copy=False)

    def __len__(self) -> int:
        return int(self.columns["micro_batch"].size)

    def __iter__(self) -> Iterator[Plan]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Plan: ...

    @overload
    def __getitem__(self, index: slice) -> Plans: ...

    def __getitem__(self, index: int | slice) -> Plan | Plans:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return Plan(**{name: _value(name, int(self.columns[name][index])) for name in COLUMNS})

    def take(self, indices: npt.NDArray[Any]) -> Plans:
        """Those at `indices`, or where a mask is true."""
        return Plans({name: column[indices] for name, column in self.columns.items()})

    def replaced(self, **columns: Any) -> Plans:
        """The same with other columns."""
        return Plans.from_columns(len(self), **{**self.columns, **columns})

    @property
    def n_devices(self) -> IntArray:
        """Devices that each occupies."""
        return self.data_parallel * self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def global_batch(self) -> IntArray:
        """Sequences per optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.data_parallel


def code(name: str, value: str) -> int:
    """The place of a name."""
    return NAMES[name].index(value)


def _code(name: str, value: Any) -> int:
    if name in NAMES:
        return code(name, value)
    return int(value or 0)


def _value(name: str, stored: int) -> Any:
    if name in NAMES:
        return NAMES[name][stored]
    if name == "compile":
        return bool(stored)
    return None if name in _OPTIONAL and stored == 0 else stored
