"""Bytes of the numbers that a step computes with, and shapes of its products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from txlplan.cost._op_stream import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """Bytes of an element, by what computes it."""

    dtype: str
    """Of matrix products: what the plan computes in."""
    compute: float
    """Of what products take and give: 2 under autocast to fp16 or bf16."""
    wide: float = 4.0
    """Of parameters and softmax."""
    residual: float = 4.0
    """Of residuals and norms."""

    @property
    def narrow(self) -> str:
        """Dtype of what products take and give, as other operations see it: tf32 is stored as fp32."""
        return "fp32" if self.dtype == "tf32" else self.dtype

    @property
    def cast(self) -> bool:
        """Whether products compute in fewer bytes than parameters have."""
        return self.compute != self.wide

    @property
    def halved(self) -> bool:
        """Whether products take and give 2 bytes."""
        return self.compute == 2

    @property
    def narrows(self) -> bool:
        """Whether a residual is cast for the products that take it."""
        return self.compute != self.residual


class Shape(TypedDict):
    """`count` products [m, k] × [k, n], in so many `launches` (one)."""

    count: Figure
    m: Figure
    n: Figure
    k: Figure
    launches: NotRequired[Figure]
