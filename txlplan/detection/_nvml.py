"""NVIDIA GPUs as NVML (the driver's own library, through pynvml) names them, or as torch does where NVML is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU as the driver reports it. None: unknown."""

    name: str
    memory_bytes: int
    compute_capability: str | None
    cores: int | None = None
    """Streaming multiprocessors."""
    power_limit_w: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuSurvey:
    """The GPUs that were found, the driver, and a note for whatever could not be asked."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    notes: tuple[str, ...] = ()


def survey_nvml() -> GpuSurvey:
    """Ask NVML. Without its library or driver: no GPUs and a note that says why."""
    try:
        import pynvml
    except ImportError as error:
        return GpuSurvey(notes=(f"pynvml cannot be imported ({error}): GPUs are looked for with torch only",))
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuSurvey(notes=(f"NVML: {error}",))
    try:
        return _ask(pynvml)
    except pynvml.NVMLError as error:
        return GpuSurvey(notes=(f"NVML: {error}",))
    finally:
        pynvml.nvmlShutdown()


def _ask(pynvml: Any) -> GpuSurvey:
    nvml = _Nvml(pynvml)
    gpus: list[Gpu] = []
    for index in range(nvml.call("nvmlDeviceGetCount", default=0)):
        handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
        memory = nvml.call("nvmlDeviceGetMemoryInfo", handle) if handle is not None else None
        if memory is None:
            nvml.notes.append(f"NVML: GPU {index} does not answer and is left out")
            continue
        capability = nvml.call("nvmlDeviceGetCudaComputeCapability", handle)
        limit_mw = nvml.call("nvmlDeviceGetPowerManagementLimit", handle)
        gpus.append(
            Gpu(
                name=_text(nvml.call("nvmlDeviceGetName", handle)) or "unknown NVIDIA GPU",
                memory_bytes=int(memory.total),
                compute_capability=".".join(map(str, capability)) if capability else None,
                power_limit_w=limit_mw / 1000 if limit_mw else None,
            )
        )
    return GpuSurvey(gpus=tuple(gpus), driver=_text(nvml.call("nvmlSystemGetDriverVersion")), notes=tuple(nvml.notes))


class _Nvml:
    """Calls into pynvml; one that fails is noted once and gives a default."""

    def __init__(self, pynvml: Any) -> None:
        self._pynvml = pynvml
        self.notes: list[str] = []

    def call(self, name: str, *arguments: Any, default: Any = None) -> Any:
        try:
            return getattr(self._pynvml, name)(*arguments)
        except self._pynvml.NVMLError as error:
            note = f"NVML: {name}: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return default


def _text(value: object) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None if value is None else str(value)


def survey_torch() -> GpuSurvey:
    """Ask torch. It knows GPUs only where it was built for CUDA and the driver loads."""
    try:
        import torch
    except ImportError as error:
        return GpuSurvey(notes=(f"torch cannot be imported ({error})",))
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}, but no device answers" if torch.version.cuda else "built without CUDA"
        return GpuSurvey(notes=(f"torch {torch.__version__}: {built}",))
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return GpuSurvey(
        gpus=tuple(
            Gpu(
                name=each.name,
                memory_bytes=each.total_memory,
                compute_capability=f"{each.major}.{each.minor}",
                cores=each.multi_processor_count,
            )
            for each in properties
        )
    )
