"""How a model is trained where nobody says otherwise."""

from __future__ import annotations

from typing import Any

from txlplan.model import ModelConfig
from txlplan.workload import Optimization

CLIP_NORM = 0.25
"""Gradient clipping of the original training scripts (https://github.com/kimiyoung/transformer-xl, `--clip 0.25`)."""
BASE_LEARNING_RATE, BASE_WIDTH = 2.5e-4, 410
"""Adam's learning rate of the original wt103 base model, and its d_model (same scripts, run_wt103_base.sh)."""
WARMUP_SHARE = 0.025
"""Warm-up over all steps: 1,000 of 40,000 in NVIDIA's wt103 base configuration."""


def recipe(model: ModelConfig, steps: int | None, **given: Any) -> Optimization:
    """AdamW along a cosine; the learning rate of the paper, raised in proportion for narrower models. `given` goes before it.

    For Adam the best learning rate falls as 1/width (Yang et al. 2022, arXiv:2203.03466); it is not lowered for the wider
    models that the paper trained with the same. Raises InputError for a value that makes no sense.
    """
    defaults = {
        "learning_rate": BASE_LEARNING_RATE * max(1.0, BASE_WIDTH / model.d_model),
        "clip_norm": CLIP_NORM,
        "warmup_steps": round(WARMUP_SHARE * (steps or 0)),
    }
    return Optimization(**{**defaults, **given})
