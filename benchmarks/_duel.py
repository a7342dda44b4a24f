"""Two modules learn the same text for the same time, in turns, each at the learning rate that suits it."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _contenders import CONFIGS, CONTENDERS, ROWS
from _curves import prepared

from txlplan.data import Dataset, SegmentLoader, bits_per_character, open_dataset
from txlplan.engine.windows import Windows
from txlplan.model import ModelConfig

SIDES = ("fast", "x-transformers")
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
_WARMUP = 0.05
"""Of the training, in which the learning rate rises; it then falls to nothing by a cosine."""
_TURN_S = 25.0
_SEED = 1
_TUNED_ON_SEGMENTS, _SCORED_SEGMENTS = 20, 200
"""Of the validation split, and of the held-out one at the end; of all rows."""
Row = dict[str, Any]


class Learner:
    """A contender with its optimizer, its place in the text, and how long it has learnt."""

    def __init__(self, name: str, config: ModelConfig, dataset: Dataset, learning_rate: float) -> None:
        torch.manual_seed(_SEED)
        self.name, self._config, self._learning_rate, self._rows = name, config, learning_rate, ROWS[config.id]
        self.contender = CONTENDERS[name](config)
        self._optimizer = torch.optim.Adam(self.contender.model.parameters(), lr=learning_rate, fused=True)
        self._dataset = dataset
        self._loader = SegmentLoader(dataset.tokens("train"), batch=self._rows, tgt_len=config.tgt_len)
        self.seconds, self.steps = 0.0, 0

    def step(self, done: float) -> None:
        """One, when a share of the training is `done`."""
        start_s = time.perf_counter()
        inputs, targets = (torch.from_numpy(array) for array in self._loader.next())
        if self._loader.wrapped:
            self.contender.memory = None
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * _factor(done)
        self.contender.nll(inputs, targets).mean().backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.seconds += time.perf_counter() - start_s
        self.steps += 1

    def bits_per_character(self, split: str, segments: int) -> float:
        """Of the first segments of a split, with memory; what was remembered before comes back."""
        windows = Windows(tokens=self._dataset.tokens(split), rows=self._rows, tgt_len=self._config.tgt_len)
        model, kept, nats, tokens = self.contender.model.eval(), self.contender.memory, 0.0, 0
        self.contender.memory = None
        with torch.no_grad():
            for number, (inputs, targets, counted) in enumerate(windows.segments(0, self._rows)):
                if number == segments:
                    break
                nll = self.contender.nll(torch.from_numpy(inputs), torch.from_numpy(targets)).view(targets.shape)
                nats += float(nll.double()[torch.from_numpy(counted)].sum())
                tokens += int(counted.sum())
        model.train()
        self.contender.memory = kept
        return bits_per_character(nats / tokens, self._dataset.split(split))

    def save(self, path: Path) -> None:
        """All that a later `load` goes on from; a file that is half-written has another name."""
        state = {
            "model": self.contender.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "memory": self.contender.memory,
            "loader": self._loader.state(),
            "seconds": self.seconds,
            "steps": self.steps,
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        """Go on from `save`."""
        state = torch.load(path, weights_only=True)
        self.contender.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.contender.memory = state["memory"]
        self._loader.restore(state["loader"])
        self.seconds, self.steps = state["seconds"], state["steps"]


def _factor(done: float) -> float:
    return min(1.0, done / _WARMUP + 0.01) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def rates(options: argparse.Namespace) -> list[Row]:
    """Bits per character of each side at each learning rate after the same steps. What is done is kept in `--directory`."""
    dataset = open_dataset(prepared(options))
    rows = []
    for name in SIDES:
        for rate in LEARNING_RATES:
            path = _rates_of(options) / f"{name}-{rate:g}.json"
            if not path.exists():
                learner = Learner(name, _config(options), dataset, rate)
                for step in range(options.steps):
                    learner.step(step / options.steps)
                bits = learner.bits_per_character("valid", _TUNED_ON_SEGMENTS)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"name": name, "learning rate": rate, "bits per character": bits}) + "\n")
            rows.append({"steps": options.steps, **json.loads(path.read_text())})
            print(f"{name} at {rate:g}: {rows[-1]['bits per character']:.3f} bits per character", flush=True)
    return rows


def duel(options: argparse.Namespace) -> list[Row]:
    """Learn in turns for `--for` seconds, and so again at every call, until each side has had `--seconds`; then score."""
    dataset, config = open_dataset(prepared(options)), _config(options)
    best = _best_rates(options)
    learners = [Learner(name, config, dataset, best[name]) for name in SIDES]
    paths = [_duel_of(options) / f"{name}.pt" for name in SIDES]
    for learner, path in zip(learners, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            learner.load(path)
    end_s = time.monotonic() + getattr(options, "for")
    while (behind := min(learners, key=lambda each: each.seconds)).seconds < options.seconds:
        if time.monotonic() + _TURN_S > end_s:
            break
        _turn(behind, options.seconds)
    for learner, path in zip(learners, paths, strict=True):
        learner.save(path)
    over = all(learner.seconds >= options.seconds for learner in learners)
    return [_row(learner, best[learner.name], scored=over) for learner in learners]


def _turn(learner: Learner, seconds: float) -> None:
    until_s = min(learner.seconds + _TURN_S, seconds)
    while learner.seconds < until_s:
        learner.step(learner.seconds / seconds)


def _row(learner: Learner, rate: float, *, scored: bool) -> Row:
    row = {"name": learner.name, "learning rate": rate, "steps": learner.steps, "seconds": round(learner.seconds, 1)}
    return row | {"bits per held-out character": learner.bits_per_character("test", _SCORED_SEGMENTS)} if scored else row


def _best_rates(options: argparse.Namespace) -> dict[str, float]:
    found: dict[str, Row] = {}
    for path in sorted(_rates_of(options).glob("*.json")):
        row = json.loads(path.read_text())
        best = found.setdefault(row["name"], row)
        found[row["name"]] = min(best, row, key=lambda each: each["bits per character"])
    if set(found) != set(SIDES):
        raise SystemExit(f"duel needs learning rates for both sides: run `rates` with --directory {options.directory} before")
    return {name: row["learning rate"] for name, row in found.items()}


def _config(options: argparse.Namespace) -> ModelConfig:
    """Norms before each part of a layer, as x-transformers has them: after it, both would need a longer warm-up."""
    return replace(CONFIGS[options.config], norm="pre")


def _rates_of(options: argparse.Namespace) -> Path:
    path: Path = options.directory / f"rates-{options.config}"
    return path


def _duel_of(options: argparse.Namespace) -> Path:
    path: Path = options.directory / f"duel-{options.config}-{options.seconds:g}-s"
    return path
