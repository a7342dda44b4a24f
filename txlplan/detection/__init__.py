"""Detecting this machine's devices, and measuring what they reach."""

from txlplan.detection._cpu import Cpu, usable_cpus
from txlplan.detection._detect import Detection, detect

__all__ = ["Cpu", "Detection", "detect", "usable_cpus"]
