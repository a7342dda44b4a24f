"""Keep what a probe measured as the user's own profiles, and find the profiles that describe this machine."""

from __future__ import annotations

from pathlib import Path

from txlplan import files, resources
from txlplan.config import to_toml
from txlplan.detection._detect import Detection, detect
from txlplan.detection._probe import ProbeResult
from txlplan.hardware import DeviceProfile, Host, StackProfile, SystemProfile, devices, stacks, systems

_GENERIC_STACKS = {"cpu": "txlplan-cpu", "gpu": "txlplan-cuda", "tpu": "txlplan-cuda"}


def write_profiles(result: ProbeResult) -> tuple[Path, Path, Path]:
    """Write device, stack and system into the user's profiles, replacing what an earlier probe wrote; the system comes last."""
    return (
        _write("devices", result.device),
        _write("stacks", result.stack),
        _write("systems", result.system),
    )


def _write(directory: str, profile: DeviceProfile | StackProfile | SystemProfile) -> Path:
    path = resources.user("profiles") / directory / f"{profile.id}.toml"
    files.write_text(path, to_toml(profile))
    return path


def this_machine() -> tuple[SystemProfile, DeviceProfile, StackProfile]:
    """The probed profiles of this machine where there are some, else what detection says with a shipped stack."""
    detection = detect()
    best = detection.devices[0]
    if f"local-{best.kind}" in systems.paths():
        system = systems.get(f"local-{best.kind}")
        return system, devices.get(system.device), stacks.get(system.stack or _GENERIC_STACKS[best.kind])
    stack = stacks.get(_GENERIC_STACKS[best.kind])
    return _derived_system(detection, best, stack), best, stack


def _derived_system(detection: Detection, device: DeviceProfile, stack: StackProfile) -> SystemProfile:
    return SystemProfile(
        id=f"local-{device.kind}",
        name=f"this machine ({device.name})",
        kind="local",
        device=device.id,
        n_devices=max(1, sum(each.id == device.id for each in detection.devices)),
        host=Host(cpu=detection.cpu.name, cores=detection.cpu.cores, memory_bytes=detection.cpu.memory_bytes),
        stack=stack.id,
        provenance="derived",
        sources={"default": "the operating system"},
        notes="Not measured yet: `txlplan hardware probe` does.",
    )
