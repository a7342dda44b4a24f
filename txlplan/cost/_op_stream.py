"""What one step executes, as a struct of arrays: rows are operations, columns are candidate plans.

An operation is described once, as an `Op` whose figures are numbers or arrays over candidates; `OpStream.of` stacks
them. One row may stand for the same operation in several layers (`repeat`): its figures are those of one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from txlplan.hardware._stack import OpKind
from txlplan.hardware._stack import Phase as Measured

FloatArray = npt.NDArray[np.float64]
Figure = float | FloatArray
"""A number, or one number per candidate."""
Phase = Literal["forward", "recompute", "backward", "accumulation", "update"]
"""`recompute` is forward work done again in backward, for activation checkpointing; MFU does not count it. `accumulation` is
done after every micro-batch but the first."""

FIGURES = (
    "m",
    "n",
    "k",
    "flops",
    "bytes_moved",
    "saved_bytes",
    "gradient_bytes",
    "transient_bytes",
    "launches",
    "dispatched",
    "repeat",
    "draws",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One operation of one layer (or of the embedding, the softmax, the update)."""

    name: str
    group: str
    """The term of an estimate it is counted under."""
    section: str
    """Consecutive operations that repeat together: `embedding`, `layers`, `softmax`, …"""
    kind: OpKind
    phase: Phase
    dtype: str
    """What it computes in: decides the peak and the efficiency points."""
    m: Figure = 0.0
    n: Figure = 0.0
    k: Figure = 0.0
    """Shape of one product (gemm, bmm): [m, k] × [k, n]."""
    flops: Figure = 0.0
    """Of matrix products, 2·m·n·k each; other kinds are bound by bandwidth and count none (as torch's FlopCounterMode)."""
    bytes_moved: Figure = 0.0
    """Read and written, each tensor once."""
    saved_bytes: Figure = 0.0
    """Kept for backward once it has run; negative in backward, where they are given back."""
    gradient_bytes: Figure = 0.0
    """Parameter gradients that it leaves behind."""
    transient_bytes: Figure = 0.0
    """Live only around it: inputs and outputs that nothing keeps."""
    measured_as: Measured | None = None
    """Which efficiency a product has, where its phase does not say: `weights` where it gives a weight's gradient, `forward`
    where backward computes a layer's output again."""
    launches: Figure = 1.0
    """Operations the host dispatches, and kernels the device starts."""
    dispatch: Figure = 1.0
    """Host time of one of them, in that of an operation which modules call and autograd records."""
    repeat: Figure = 1.0
    draws: Figure = 0.0
    """Random numbers drawn, where that is not hidden behind the memory traffic."""

    @property
    def dispatched(self) -> Figure:
        """Operations that would take the host as long, if modules called them and autograd recorded them."""
        return self.launches * self.dispatch


@dataclass(frozen=True, kw_only=True, slots=True)
class OpStream:
    """Operations in the order in which they run. Every array is [ops, candidates]; bytes and FLOPs are of one repetition."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    sections: tuple[str, ...]
    kinds: tuple[OpKind, ...]
    phases: tuple[Phase, ...]
    dtypes: tuple[str, ...]
    measured_as: tuple[Measured | None, ...]
    m: FloatArray
    n: FloatArray
    k: FloatArray
    flops: FloatArray
    bytes_moved: FloatArray
    saved_bytes: FloatArray
    gradient_bytes: FloatArray
    transient_bytes: FloatArray
    launches: FloatArray
    dispatched: FloatArray
    repeat: FloatArray
    draws: FloatArray

    @classmethod
    def of(cls, ops: Sequence[Op], candidates: int) -> OpStream:
        """Stack operations; each of their figures is broadcast to [candidates]."""
        figures = {name: np.zeros((len(ops), candidates)) for name in FIGURES}
        for row, op in enumerate(ops):
            for name, array in figures.items():
                figure = getattr(op, name)
                if not isinstance(figure, float) or figure:  # most are zero
                    array[row] = figure
        return cls(
            names=tuple(op.name for op in ops),
            groups=tuple(op.group for op in ops),
            sections=tuple(op.section for op in ops),
            kinds=tuple(op.kind for op in ops),
            phases=tuple(op.phase for op in ops),
            dtypes=tuple(op.dtype for op in ops),
            measured_as=tuple(op.measured_as for op in ops),
            **figures,
        )

    def __len__(self) -> int:
        return len(self.names)

    def with_figures(self, figures: Mapping[str, FloatArray]) -> OpStream:
        """The same operations with other figures, by the names of `FIGURES`."""
        return replace(self, **figures)  # type: ignore[arg-type]

    def without(self, name: str) -> OpStream:
        """All operations but those of this name."""
        rows = [row for row, other in enumerate(self.names) if other != name]
        if len(rows) == len(self):
            return self
        labels = ("names", "groups", "sections", "kinds", "phases", "dtypes", "measured_as")
        chosen: dict[str, Any] = {label: tuple(getattr(self, label)[row] for row in rows) for label in labels}
        return OpStream(**chosen, **{name: getattr(self, name)[rows] for name in FIGURES})

    def rows(self, *phases: Phase) -> npt.NDArray[np.bool_]:
        """Mask of the operations of some phases, [ops]."""
        return np.array([phase in phases for phase in self.phases], dtype=bool)

    def total(self, figure: FloatArray, *phases: Phase) -> FloatArray:
        """Sum of `figure` × repeat over the operations of some phases, [candidates]."""
        chosen = self.rows(*phases)
        return summed(figure[chosen] * self.repeat[chosen])


_NARROW = 8
"""Columns below which NumPy may add rows pairwise, and a running sum is quick."""


def summed(figure: FloatArray) -> FloatArray:
    """Sum over operations, [ops, candidates] → [candidates], in their order: NumPy's own sum adds a single candidate's
    in another order than those of many, and a plan's estimate must not depend on what else is costed with it."""
    if not len(figure):
        return np.zeros(figure.shape[1])
    if figure.shape[1] < _NARROW:
        running: FloatArray = np.add.accumulate(figure, axis=0)[-1]
        return running
    total: FloatArray = np.add.reduce(np.ascontiguousarray(figure), axis=0)
    return total
