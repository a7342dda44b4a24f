"""From what was detected to a device profile: a shipped (or the user's) one that matches, else one derived from the figures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from txlplan.detection._cpu import Cpu
from txlplan.detection._nvml import Gpu
from txlplan.hardware import DeviceProfile

_MEMORY_TOLERANCE = 0.12
"""A driver reports a few per cent less than the installed memory; another variant differs by a quarter at least."""
_FMA_PER_SM = {"7.0": 512, "7.5": 256, "8.0": 1024, "8.6": 256, "8.9": 256, "9.0": 2048}
"""Dense fp16 FMA per multiprocessor and clock with fp32 accumulation, the smallest of each compute capability."""
_FP32_CORES_PER_SM = {"6.1": 128, "7.0": 64, "7.5": 64, "8.0": 64, "8.6": 128, "8.9": 128, "9.0": 128}
_ARCHITECTURE = {"6": "pascal", "7.0": "volta", "7.5": "turing", "8.9": "ada", "8": "ampere", "9": "hopper", "10": "blackwell"}
_GUESSED_CLOCK_HZ = 1.5e9
_GUESSED_SMS = 40
_GUESSED_BANDWIDTH_BYTES_PER_S = 300e9
_CPU_FLOP_PER_CLOCK = (("amx_bf16", 64), ("avx512f", 32), ("avx2", 32), ("avx", 16), ("asimd", 16))
"""fp32 FLOP a core does in a clock: two 256-bit FMA units. AVX-512 counts the same, since many CPUs issue half as many; those
with AMX have two of 512 bits: 350 to 436 GFLOP/s on 2 cores at 2.6 GHz (`benchmarks/training.py products`, torch 2.13,
2026-11-26)."""
_BF16_OF_FP32 = (("amx_bf16", 6.9), ("avx512_bf16", 2.0), ("bf16", 2.0))
"""Peak of bf16 by instructions for it over that of fp32. AMX: what the same benchmark reached, 2,420 of 350, 2,630 of 403 and
2,710 of 379 GFLOP/s; a data sheet says more. The others are assumed (AVX-512's differ: that CPU kept to them reached 220 of
409)."""
_GUESSED_CPU_CLOCK_HZ = 2.5e9
_CPU_BANDWIDTH_PER_CORE_BYTES_PER_S = 8e9
_CPU_BANDWIDTH_BYTES_PER_S = 40e9
_CACHE_BYTES_PER_CORE = 32 * 2**20
"""Most that a CPU has (AMD EPYC 72F3: 256 MiB for 8 cores, by its data sheet). Two cores of a virtual machine are told of their
socket's 480 MiB, which others use too."""
_WIDENED = 0.85
"""Share of fp32's rate where products of bf16 are computed in fp32: the best of each as `hardware probe` measured them on 2
cores of an AMD EPYC (Zen 3), 112 of 131 GFLOP/s (torch 2.13, 2026-11-26); as with AVX-512 alone
(`nn/_widened.py`)."""
_GUESS = "assumed, until `txlplan hardware probe` measures it"


def match_gpu(gpu: Gpu, profiles: Iterable[DeviceProfile]) -> DeviceProfile:
    """The profile whose `match` names this GPU and whose memory is nearest, else a derived one."""
    named = [each for each in profiles if any(fnmatchcase(gpu.name, pattern) for pattern in each.match)]
    near = [each for each in named if _memory_distance(each, gpu.memory_bytes) <= _MEMORY_TOLERANCE]
    if near:
        return min(near, key=lambda each: _memory_distance(each, gpu.memory_bytes))
    return derive_gpu(gpu)


def _memory_distance(profile: DeviceProfile, memory_bytes: int) -> float:
    return min(abs(memory_bytes / size - 1) for size in (profile.usable_bytes(), profile.memory_bytes))


def derive_gpu(gpu: Gpu) -> DeviceProfile:
    """A profile of a GPU that none describes: its own memory and capability, the rest assumed and said so."""
    capability = gpu.compute_capability or ""
    cores = gpu.cores or _GUESSED_SMS
    fp32 = 2 * cores * _FP32_CORES_PER_SM.get(capability, 64) * _GUESSED_CLOCK_HZ
    peaks = {"fp32": fp32}
    if capability in _FMA_PER_SM:
        half = 2 * cores * _FMA_PER_SM[capability] * _GUESSED_CLOCK_HZ
        peaks |= {"fp16": half} | ({"bf16": half, "tf32": half / 2} if capability >= "8" else {})
    return DeviceProfile(
        id=slug(gpu.name),
        name=gpu.name,
        kind="gpu",
        vendor="NVIDIA",
        architecture=_ARCHITECTURE.get(capability) or _ARCHITECTURE.get(capability.partition(".")[0], "unknown"),
        match=(gpu.name,),
        memory_bytes=gpu.memory_bytes,
        memory_bandwidth_bytes_per_s=_GUESSED_BANDWIDTH_BYTES_PER_S,
        peak_flops_per_s=peaks,
        cores=cores,
        compute_capability=gpu.compute_capability,
        power_w=gpu.power_limit_w,
        provenance="derived",
        sources={"default": _GUESS, "memory": "the driver", "compute_capability": "the driver", "power": "the driver's limit"},
        notes="No profile matches this GPU's name and memory.",
    )


def match_cpu(cpu: Cpu, profiles: Iterable[DeviceProfile]) -> DeviceProfile:
    """The profile that names this CPU and fits its cores and memory (a probed one), else a derived one."""
    for each in profiles:
        named = each.kind == "cpu" and any(fnmatchcase(cpu.name, pattern) for pattern in each.match)
        if named and each.cores == cpu.cores and _memory_distance(each, cpu.memory_bytes) <= _MEMORY_TOLERANCE:
            return each
    return derive_cpu(cpu)


def derive_cpu(cpu: Cpu) -> DeviceProfile:
    """A profile of this CPU from its cores, clock and instruction sets; peaks and bandwidth are assumed and said so."""
    flop_per_clock = next((flop for feature, flop in _CPU_FLOP_PER_CLOCK if feature in cpu.features), 8)
    clock_hz = cpu.clock_hz or _GUESSED_CPU_CLOCK_HZ
    fp32 = cpu.cores * clock_hz * flop_per_clock
    bf16 = next((share for feature, share in _BF16_OF_FP32 if feature in cpu.features), _WIDENED) * fp32
    known = " ".join(f"{feature} {share:g}," for feature, share in _BF16_OF_FP32)
    formula = f"{cpu.cores} cores x {clock_hz / 1e9:.3g} GHz x {flop_per_clock} FLOP per clock; {_GUESS}"
    return DeviceProfile(
        id="local-cpu",
        name=cpu.name,
        kind="cpu",
        vendor=cpu.vendor,
        architecture="x86-64" if "sse2" in cpu.features else "arm64" if "asimd" in cpu.features else "unknown",
        match=(cpu.name,),
        memory_bytes=cpu.memory_bytes,
        memory_bandwidth_bytes_per_s=min(_CPU_BANDWIDTH_BYTES_PER_S, cpu.cores * _CPU_BANDWIDTH_PER_CORE_BYTES_PER_S),
        peak_flops_per_s={"fp32": fp32, "bf16": bf16},
        cores=cpu.cores,
        clock_hz=cpu.clock_hz,
        cache_bytes=cache_bytes(cpu),
        provenance="derived",
        sources={
            "default": "the operating system",
            "peak.fp32": formula,
            "peak.bf16": f"{bf16 / fp32:g} times fp32 by its instructions ({known} else {_WIDENED:g}); {_GUESS}",
            "memory_bandwidth": _GUESS,
        },
        notes="",
    )


def cache_bytes(cpu: Cpu) -> int | None:
    """What is taken for the cores' share of the last cache."""
    return None if cpu.cache_bytes is None else min(cpu.cache_bytes, cpu.cores * _CACHE_BYTES_PER_CORE)


def slug(name: str) -> str:
    """A name as a profile id: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"
