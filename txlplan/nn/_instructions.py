"""Instructions for bf16 that a CPU has and that this process may use: oneDNN's limit holds for our code as for torch's."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Instruction sets that oneDNN can be told not to go beyond, with none for bf16."""
_WITHOUT_AVX2 = {"SSE41", "AVX"}
_NARROW_BF16 = "AVX2_VNNI_2"
"""One with some, in AVX2's registers alone."""


@cache
def is_amd() -> bool:
    """Whether this CPU is one of AMD's, as Linux tells it."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def may_use_avx2() -> bool:
    """Whether this CPU has AVX2, and oneDNN is not told to do without."""
    return bool(torch.cpu._is_avx2_supported()) and _told() not in _WITHOUT_AVX2


def may_use_bf16() -> bool:
    """Whether this CPU multiplies bf16 in AVX-512's registers, and oneDNN is not told to do without."""
    return bool(torch.cpu._is_avx512_bf16_supported()) and _told() not in _WITHOUT_BF16 | {_NARROW_BF16}


def may_use_tiles() -> bool:
    """Whether this CPU has AMX, and oneDNN is not told to do without."""
    told = _told()
    return bool(torch.cpu._is_amx_tile_supported()) and (not told or "AMX" in told or told in {"ALL", "DEFAULT"})


def is_told_without_bf16() -> bool:
    """Whether oneDNN is told to keep to instructions of which none is for bf16."""
    return _told() in _WITHOUT_BF16


def _told() -> str:
    """The instruction set that oneDNN is told not to go beyond, in capital letters; "": none."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
