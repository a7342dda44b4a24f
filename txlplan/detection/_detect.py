"""Name this machine's devices: NVML, then torch, then the operating system; each failure a note, none fatal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from txlplan.detection._cpu import Cpu, read_cpu
from txlplan.detection._match import match_cpu, match_gpu
from txlplan.detection._nvml import survey_nvml, survey_torch
from txlplan.errors import ConfigError
from txlplan.hardware import DeviceProfile, devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """What this machine has."""

    devices: tuple[DeviceProfile, ...]
    """Accelerators first, one entry each; the CPU last."""
    cpu: Cpu
    driver: str | None
    """Of the GPUs."""
    notes: tuple[str, ...]
    """What could not be asked, and what a container limits."""

    @property
    def accelerators(self) -> tuple[DeviceProfile, ...]:
        """The devices that are no CPU."""
        return tuple(device for device in self.devices if device.kind != "cpu")


def detect() -> Detection:
    """Detect GPUs and CPU and match each with a profile; what no profile describes gets a derived one."""
    known, notes = _readable_profiles()
    survey = survey_nvml()
    notes += survey.notes
    if not survey.gpus:
        fallback = survey_torch()
        notes += fallback.notes
        survey = fallback
    cpu = read_cpu()
    notes += cpu.notes
    gpus = [match_gpu(gpu, known) for gpu in survey.gpus]
    notes += [
        f"no profile matches {gpu.name!r}: derived from what the driver says" for gpu in gpus if gpu.provenance == "derived"
    ]
    found = (*gpus, match_cpu(cpu, known))
    return Detection(devices=found, cpu=cpu, driver=survey.driver, notes=tuple(dict.fromkeys(notes)))


def _readable_profiles() -> tuple[list[DeviceProfile], list[str]]:
    """Every device profile that parses; a broken one of the user's is noted and does not stop the detection."""
    found: list[DeviceProfile] = []
    notes: list[str] = []
    for name in _names(devices.paths()):
        try:
            found.append(devices.get(name))
        except ConfigError as error:
            notes.append(f"profile left out: {error.message}")
    return found, notes


def _names(paths: Iterable[str]) -> list[str]:
    """Local profiles first: what a probe measured comes before what is shipped."""
    return sorted(paths, key=lambda name: (not name.startswith("local-"), name))
