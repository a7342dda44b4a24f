"""Realistic records for tests: a byte-level model trained on a two-core CPU, its trials, and ways to go wrong."""

from __future__ import annotations

import dataclasses
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from txlplan.estimates import Estimate, Range, Term
from txlplan.hardware import DeviceProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.records import Environment, LossPoint, Record
from txlplan.workload import Workload

MIB = 2**20
BEGAN = datetime(2025, 3, 4, 9, 30, tzinfo=UTC)


def make_model(**changes: Any) -> ModelConfig:
    """A small byte-level model."""
    fields: dict[str, Any] = {
        "id": "demo-bytes", "n_layer": 4, "d_model": 192, "n_head": 6, "d_head": 32, "d_inner": 768,
        "vocab_size": 256, "tgt_len": 64, "mem_len": 64,
    }  # fmt: skip
    return ModelConfig(**fields | changes)


def make_device(**changes: Any) -> DeviceProfile:
    """A two-core CPU as a probe describes it."""
    fields: dict[str, Any] = {
        "id": "local-cpu", "name": "AMD EPYC 9R14", "kind": "cpu", "vendor": "AMD", "architecture": "zen4",
        "memory_bytes": 8 * 2**30, "memory_usable_bytes": 7 * 2**30, "memory_bandwidth_bytes_per_s": 28e9,
        "peak_flops_per_s": {"fp32": 175e9, "bf16": 410e9}, "cores": 2, "clock_hz": 3.7e9, "provenance": "measured",
    }  # fmt: skip
    return DeviceProfile(**fields | changes)


def make_environment(**changes: Any) -> Environment:
    """Where it ran."""
    fields: dict[str, Any] = {
        "python": "3.11.9", "torch": "2.13.0", "operating_system": "Debian GNU/Linux 12 (bookworm), Linux 6.1.0 x86_64",
        "hostname": "bench-1", "git_commit": "0123456789abcdef0123456789abcdef01234567", "git_dirty": False,
    }  # fmt: skip
    return Environment(**fields | changes)


def make_estimate(tokens_per_s: float = 5200.0, peak_memory_bytes: float = 612 * MIB, **changes: Any) -> Estimate:
    """An estimate with time and memory terms that add up to its step time and peak."""
    step_s = 1024 / tokens_per_s
    time = {"matrix products": 0.62, "attention scores": 0.17, "optimizer": 0.09, "elementwise": 0.08, "host": 0.04}
    memory = {"process": 0.42, "saved activations": 0.33, "optimizer states": 0.11, "gradients": 0.06, "parameters": 0.06,
              "recurrent memory": 0.02}  # fmt: skip
    bounds = ("compute", "bandwidth", "bandwidth", "bandwidth", "host")
    terms = [
        Term(name=name, quantity="time", value=share * step_s, formula="flops / (peak × efficiency)", provenance="measured",
             bound=bound)
        for (name, share), bound in zip(time.items(), bounds, strict=True)
    ] + [
        Term(name=name, quantity="memory", value=share * peak_memory_bytes, formula="elements × 4 B", provenance="derived")
        for name, share in memory.items()
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "stack": "local-cpu",
        "step_s": Range(value=step_s, low=step_s * 0.85, high=step_s * 1.2),
        "tokens_per_s": Range(value=tokens_per_s, low=tokens_per_s / 1.2, high=tokens_per_s / 0.85),
        "peak_memory_bytes": Range(value=peak_memory_bytes, low=peak_memory_bytes * 0.92, high=peak_memory_bytes * 1.1),
        "capacity_bytes": round(6.65 * 2**30), "fits": True, "flops_per_step": 1.9e10, "mfu": 0.56, "energy_j_per_step": None,
        "terms": tuple(terms), "extrapolated": False,
    }  # fmt: skip
    return Estimate(**fields | changes)


def make_record(seed: int = 1, *, steps: int = 240, **changes: Any) -> Record:
    """A finished training run of `steps` steps, with an estimate a few per cent off."""
    noise = random.Random(seed)
    began = BEGAN + timedelta(minutes=seed)
    step_s = tuple(round((0.34 if step < 3 else 0.189) * noise.uniform(0.96, 1.06), 6) for step in range(steps))
    steady_s = sum(step_s[3:])
    losses = [
        LossPoint(step=step, split="train", loss=round(1.55 + 4.0 * math.exp(-step / 60) + noise.uniform(-0.03, 0.03), 4))
        for step in range(1, steps + 1, 5)
    ]
    losses += [
        LossPoint(step=s, split="valid", loss=round(1.62 + 3.9 * math.exp(-s / 60), 4)) for s in range(60, steps + 1, 60)
    ]
    fields: dict[str, Any] = {
        "id": f"{began:%Y%m%dT%H%M%S%f}-{seed:06x}", "created_at": began.isoformat().replace("+00:00", "Z"),
        "finished_at": (began + timedelta(seconds=sum(step_s) + 4)).isoformat().replace("+00:00", "Z"), "outcome": "ok",
        "workload": Workload(model=make_model(), tokens=1024 * max(steps, 1), global_batch=16),
        "plan": Plan(micro_batch=16, threads=2), "system": "local", "stack": "local-cpu", "device": make_device(),
        "environment": make_environment(), "process_id": 4242, "run_directory": "/home/ada/runs/demo",
        "estimate": make_estimate(),
        "step_s": step_s, "warmup_steps": 3, "tokens_per_step": 1024,
        "tokens_per_s": 1024 * len(step_s[3:]) / steady_s if steady_s else None,
        "peak_memory_bytes": 640 * MIB, "losses": tuple(losses), "perplexity": 5.05, "bits_per_character": 2.337,
        "text": "The state of the Union is <b>strong</b> & growing.\n",
    }  # fmt: skip
    return Record(**fields | changes)


def make_family(trials: int = 3) -> list[Record]:
    """A run and the trials before it, newest first."""
    run = make_record(50)
    plans = (Plan(micro_batch=16, threads=2), Plan(micro_batch=8, accumulation=2, threads=2), Plan(micro_batch=4, threads=1))
    speeds, guesses = (5380.0, 4810.0, 2950.0), (5200.0, 4600.0, 3600.0)
    family = [
        make_record(
            10 + index, steps=12, kind="trial", parent=run.id, plan=plans[index % 3], tokens_per_s=speeds[index % 3],
            estimate=make_estimate(guesses[index % 3], (612 - 90 * (index % 3)) * MIB),
            peak_memory_bytes=(640 - 100 * (index % 3)) * MIB, perplexity=None, bits_per_character=None, text=None, losses=(),
        )
        for index in range(trials)
    ]  # fmt: skip
    return [run, *reversed(family)]


def make_failed(seed: int = 90, message: str = "loss is not finite at step 121", **changes: Any) -> Record:
    """A run that failed before it measured much."""
    fields: dict[str, Any] = {
        "outcome": "failed", "message": message, "perplexity": None, "bits_per_character": None, "text": None,
    }  # fmt: skip
    return dataclasses.replace(make_record(seed, steps=120), **fields | changes)
