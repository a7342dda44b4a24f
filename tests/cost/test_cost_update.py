"""Operations of an update, by what they move."""

from __future__ import annotations

from dataclasses import replace

from txlplan.cost._update import update
from txlplan.model import ModelConfig, parameter_count
from txlplan.workload import Optimization


def test_what_clips_on_its_way_moves_less(tiny_model: ModelConfig) -> None:
    """The norm alone is read before, and the gradient written beside weight and states."""
    plain = Optimization(optimizer="adam", clip_norm=None)
    parameters = parameter_count(tiny_model)

    def moved(optimization: Optimization, precision: str = "fp32") -> float:
        return sum(float(op.bytes_moved) for op in update(optimization, tiny_model, precision))  # type: ignore[arg-type]

    clipped = replace(plain, clip_norm=1.0)
    assert moved(clipped) - moved(plain) == 8 * parameters
    assert moved(clipped, "fp16") - moved(plain, "fp16") == 12 * parameters
    lamb = replace(plain, optimizer="lamb")
    assert moved(replace(lamb, clip_norm=1.0)) - moved(lamb) == 12 * parameters
