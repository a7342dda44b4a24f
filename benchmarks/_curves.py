"""Learning by the reference path, the fast one, and the fast one in bf16: the same steps, bits per held-out character."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from txlplan.choices import AttentionPath, Precision
from txlplan.data import bits_per_character, open_dataset, prepare
from txlplan.engine import evaluation
from txlplan.engine.backend import open_backend
from txlplan.engine.training import Trainer
from txlplan.engine.world import World
from txlplan.model import models
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings
from txlplan.workload import Optimization, Workload

_ROWS = 16
_SEGMENTS = 100
"""Of the validation split that are scored, of all rows."""
_PATHS: tuple[tuple[AttentionPath, Precision], ...] = (("reference", "fp32"), ("fast", "fp32"), ("fast", "bf16"))


def curves(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a path: bits per character of the validation split at the end, and their distance from the reference's."""
    if options.text is None:
        raise SystemExit("curves needs --text FILE: what is to be learnt")
    with tempfile.TemporaryDirectory() as directory:
        prepare([options.text], Path(directory) / "data", processes=1)
        found = {path: [_trained(options, Path(directory), seed, *path) for seed in range(options.seeds)] for path in _PATHS}
    reference = found[_PATHS[0]]
    return [
        {
            "path": attention,
            "precision": precision,
            "steps": options.steps,
            "bits per character": [round(each, 4) for each in bits],
            "mean": mean(bits),
            "mean distance from reference": mean(each - other for each, other in zip(bits, reference, strict=True)),
        }
        for (attention, precision), bits in found.items()
    ]


def _trained(options: argparse.Namespace, directory: Path, seed: int, attention: AttentionPath, precision: Precision) -> float:
    """Bits per character of held-out text after so many steps."""
    model = models.get("demo-bytes")
    tokens = options.steps * _ROWS * model.tgt_len
    optimization = Optimization(learning_rate=1e-3, warmup_steps=max(1, options.steps // 10), schedule="cosine")
    plan_file = PlanFile(
        system="local-cpu",
        stack="local-cpu-stack",
        workload=Workload(model=model, task="train", tokens=tokens, global_batch=_ROWS, optimization=optimization),
        plan=Plan(micro_batch=_ROWS, precision=precision, attention=attention, threads=options.threads),
        data=DataSettings(directory=str(directory / "data")),
        run=RunSettings(directory=str(directory / "run"), device="cpu", seed=seed),
    )
    backend, dataset = open_backend(plan_file, World()), open_dataset(directory / "data")
    trainer = Trainer(plan_file, backend, dataset)
    for _ in range(options.steps):
        trainer.train_step()
    split = evaluation.windows(plan_file, backend, dataset, "valid")
    nats = evaluation.score(trainer.model, backend, split, max_steps=_SEGMENTS)
    assert nats is not None, "nothing ends the score early"
    return bits_per_character(nats, dataset.split("valid"))
