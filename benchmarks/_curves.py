"""Learning by the reference path, the fast one and attention in C++, in fp32 and in bf16: the same steps, bits per held-out
character.

Rounding is amplified as training goes on, and two paths that both are right end apart. How far is measured: the reference
path learns again from weights that differ by a rounding of fp32, and of bf16. What a path may be blamed for is beyond that.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from txlplan.choices import AttentionPath, Precision
from txlplan.data import bits_per_character, open_dataset, prepare
from txlplan.demo import speeches
from txlplan.engine import checkpoint, evaluation
from txlplan.engine.backend import open_backend
from txlplan.engine.training import Trainer
from txlplan.engine.world import World
from txlplan.model import models
from txlplan.nn._attention_code import has_attention_code
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings
from txlplan.workload import Optimization, Workload

MODEL = replace(models.get("demo-bytes"), id="curves", n_layer=2, d_model=64, d_head=32, d_inner=256, norm="pre")
"""Small, since three paths learn with three seeds each. Calm: see `_CLIP_NORM`."""
ROWS = 8
LEARNING_RATE = 1e-3
_CLIP_NORM = 0.25
"""As the original code trains. With it, norms before each part and this learning rate, roundings grow little: with three
times the rate a single rounding of fp32 ends as far away as one of bf16, a few hundredths of a bit."""
_SCORED_SEGMENTS = 200
"""Of the validation split, of all rows."""
_SAVED_EVERY = 50
_PARTS = 5
"""Of a training, whose mean losses are its curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to train."""

    attention: AttentionPath
    precision: Precision = "fp32"
    weights_off_by: float = 0.0
    """Most that a weight differs at the start, as a share of itself."""

    @property
    def name(self) -> str:
        """Of its directory and row."""
        off = f"-off-by-{self.weights_off_by:.0e}" if self.weights_off_by else ""
        return f"{self.attention}-{self.precision}{off}"


_WAYS = (
    Way(attention="reference"),
    Way(attention="reference", weights_off_by=2.0**-24),
    Way(attention="reference", weights_off_by=2.0**-9),
    Way(attention="fast"),
    Way(attention="compiled"),
    Way(attention="fast", precision="bf16"),
    Way(attention="compiled", precision="bf16"),
)
"""First what the others are compared with, then what roundings of fp32 and bf16 alone do, then the paths."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One training."""

    losses: list[float]
    """Nats per token of each step, before its update."""
    bits_per_character: float
    """Of the validation split, after the last step."""


def curves(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a way: bits per character by seed, their distances from the reference's, and the curve of training.

    What is done is kept in `--directory`; the same command goes on from it.
    """
    data = prepared(options)
    ways = [
        way for way in _WAYS if way.attention != "compiled" or has_attention_code(torch.device("cpu"), _DTYPES[way.precision])
    ]
    found = {way: [_curve(options, data, seed, way) for seed in range(options.seeds)] for way in ways}
    reference = [curve.bits_per_character for curve in found[_WAYS[0]]]
    rows = []
    for way, seeds in found.items():
        bits = [curve.bits_per_character for curve in seeds]
        away = [each - other for each, other in zip(bits, reference, strict=True)]
        rows.append(
            {
                "path": way.name,
                "steps": options.steps,
                "bits per character": [round(each, 4) for each in bits],
                "mean": round(mean(bits), 4),
                "mean distance from reference": round(mean(away), 4),
                "largest distance": round(max(map(abs, away)), 4),
                "curve": [round(mean(part), 3) for part in zip(*(_parts(curve.losses) for curve in seeds), strict=True)],
            }
        )
    return rows


def prepared(options: argparse.Namespace) -> Path:
    """The data directory of `--text`, made where it is not there yet; without a text, of the State of the Union addresses."""
    data: Path = options.directory / "data"
    if not data.exists():
        prepare([options.text or speeches()], data, processes=1)
    return data


def _parts(losses: list[float]) -> list[float]:
    """Mean bits per token of each part of a training."""
    bounds = [round(part * len(losses) / _PARTS) for part in range(_PARTS + 1)]
    return [mean(losses[start:stop]) / log(2) for start, stop in pairwise(bounds)]


def _curve(options: argparse.Namespace, data: Path, seed: int, way: Way) -> Curve:
    """Train, or go on, or read what was found before."""
    setting = f"width-{MODEL.d_model}-rate-{LEARNING_RATE:g}-steps-{options.steps}"
    directory = options.directory / setting / f"{way.name}-seed-{seed}"
    found = directory / "curve.json"
    if not found.exists():
        directory.mkdir(parents=True, exist_ok=True)
        curve = _trained(_plan_file(options, data, directory, seed, way), directory, way.weights_off_by)
        found.write_text(json.dumps({"losses": curve.losses, "bits_per_character": curve.bits_per_character}))
        print(f"{directory.name}: {curve.bits_per_character:.4f} bits per character", flush=True)
    return Curve(**json.loads(found.read_text()))


def _plan_file(options: argparse.Namespace, data: Path, directory: Path, seed: int, way: Way) -> PlanFile:
    optimization = Optimization(
        learning_rate=LEARNING_RATE, clip_norm=_CLIP_NORM, warmup_steps=max(1, options.steps // 10), schedule="cosine"
    )
    tokens = options.steps * ROWS * MODEL.tgt_len
    return PlanFile(
        system="local-cpu",
        stack="local-cpu-stack",
        workload=Workload(model=MODEL, task="train", tokens=tokens, global_batch=ROWS, optimization=optimization),
        plan=Plan(micro_batch=ROWS, precision=way.precision, attention=way.attention, threads=options.threads),
        data=DataSettings(directory=str(data)),
        run=RunSettings(directory=str(directory), device="cpu", seed=seed),
    )


def _trained(plan_file: PlanFile, directory: Path, weights_off_by: float) -> Curve:
    """From the newest checkpoint on, to the end."""
    backend, dataset = open_backend(plan_file, World()), open_dataset(Path(plan_file.data.directory))
    trainer, kept = Trainer(plan_file, backend, dataset), directory / "losses.json"
    _disturb(trainer.model, weights_off_by)
    checkpoint.remove_partial(directory)
    if (saved := checkpoint.newest(directory)) is not None:
        checkpoint.load_training(saved, trainer)
    losses = json.loads(kept.read_text())[: trainer.step] if trainer.step else []
    while trainer.step < trainer.total_steps:
        losses.append(trainer.train_step().loss)
        if trainer.step % _SAVED_EVERY == 0 or trainer.step == trainer.total_steps:
            kept.write_text(json.dumps(losses))
            checkpoint.save(directory, trainer, final=False)
    split = evaluation.windows(plan_file, backend, dataset, "valid")
    nats = evaluation.score(trainer.model, backend, split, max_steps=_SCORED_SEGMENTS)
    assert nats is not None, "nothing ends the score early"
    return Curve(losses=losses, bits_per_character=bits_per_character(nats, dataset.split("valid")))


@torch.no_grad()
def _disturb(model: torch.nn.Module, share: float) -> None:
    """Each weight times 1 ± up to `share`, drawn from the same numbers every time."""
    random = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.mul_(1 + share * (2 * torch.rand(weight.shape, generator=random) - 1))
