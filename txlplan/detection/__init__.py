"""Detecting this machine's devices, and measuring what they reach.

`detect` needs no torch where NVML answers; what measures is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txlplan.detection._cpu import Cpu, usable_cpus
from txlplan.detection._detect import Detection, detect

if TYPE_CHECKING:
    from txlplan.detection._checkup import Finding, check_up
    from txlplan.detection._probe import ProbeResult, probe
    from txlplan.detection._profiles import this_machine, write_profiles

__all__ = [
    "Cpu",
    "Detection",
    "Finding",
    "ProbeResult",
    "check_up",
    "detect",
    "probe",
    "this_machine",
    "usable_cpus",
    "write_profiles",
]

_LAZY = {
    "Finding": "_checkup",
    "check_up": "_checkup",
    "ProbeResult": "_probe",
    "probe": "_probe",
    "this_machine": "_profiles",
    "write_profiles": "_profiles",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
