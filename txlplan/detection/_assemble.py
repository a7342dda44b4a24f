"""From times to profiles: ceilings, utilisations of them, and where each figure came from."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from txlplan.detection._cpu import Cpu
from txlplan.detection._host import Dispatch
from txlplan.detection._measure import COPY_BYTES, Measurement
from txlplan.detection._timing import scatter
from txlplan.hardware import PRODUCTS, DeviceProfile, EfficiencyPoint, Host, Link, Spread, StackProfile, SystemProfile
from txlplan.nn._widened import has_fast_bf16

_MODEL_LOG_SD = 0.12
"""Added (in squares) to the scatter of the repeats: what a sum of separately timed operations misses of a step. Assumed."""
_MEMORY_LOG_SD = 0.05
"""Allocator rounding and fragmentation that a liveness walk misses. Assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What was measured on."""

    where: str
    """cpu or cuda."""
    found: DeviceProfile
    """As detected."""
    cpu: Cpu
    dispatch: Dispatch
    meeting_s: float | None
    """Of a CPU's threads; None: not measured."""


def device_profile(on: Circumstances, measured: Measurement) -> DeviceProfile:
    """The detected device with measured ceilings."""
    said = _said()
    peaks = measured.peaks()
    sources = {"default": "the operating system"} if on.where == "cpu" else dict(on.found.sources)
    sources |= {f"peak.{dtype}": f"best matrix product, {said}" for dtype in peaks}
    return replace(
        on.found,
        id=f"local-{on.found.kind}",
        memory_bandwidth_bytes_per_s=float(f"{measured.bandwidth_bytes_per_s:.4g}"),
        peak_flops_per_s={dtype: float(f"{rate:.4g}") for dtype, rate in peaks.items()},
        has_bf16_units=has_fast_bf16() if on.where == "cpu" else None,
        provenance="measured",
        sources=sources | {"memory_bandwidth": f"copy between two tensors of {COPY_BYTES[on.where] >> 20} MiB, {said}"},
        notes="",
    )


def stack_profile(on: Circumstances, measured: Measurement, device: DeviceProfile) -> StackProfile:
    """Our own code on this device: utilisations of its measured ceilings, host cost, memory of a process."""
    all_threads = [each for each in measured.readings if each.threads == measured.all_threads]
    most = max(all_threads, key=lambda each: each.read_bytes, default=None)
    return StackProfile(
        id=f"{device.id}-stack",
        family="txlplan",
        version=f"torch-{torch.__version__}",
        implementation="fast" if on.where == "cpu" else "fused",
        host_op_s=on.dispatch.forward_s,
        host_backward_op_s=on.dispatch.backward_s,
        host_reading_op_s=on.dispatch.reading_s,
        meeting_s=on.meeting_s,
        reading_bandwidth_bytes_per_s=most and most.bandwidth_bytes_per_s,
        token_reading=measured.readings,
        launch_s=0.0 if on.where == "cpu" else float(f"{measured.dispatch_s:.4g}"),
        efficiency=tuple(_points(measured, device)),
        measured_device=device.id,
        spread=_spread(measured),
        provenance="measured",
        fitted_on=f"{device.name}, {_said()}",
        sources={"default": _said()},
    )


def system_profile(on: Circumstances, device: DeviceProfile, stack: StackProfile, link: Link | None = None) -> SystemProfile:
    """This machine with the one device that was measured, and how processes on it exchange, where that was."""
    host = Host(cpu=on.cpu.name, cores=on.cpu.cores, memory_bytes=on.cpu.memory_bytes)
    return SystemProfile(
        id=device.id,
        name=f"this machine ({device.name})",
        kind="local",
        device=device.id,
        n_devices=1,
        intra_node=link,
        host=host,
        stack=stack.id,
        provenance="measured",
        sources={"default": "the operating system"}
        | ({} if link is None else {"intra_node": f"all-reduce between two processes, {_said()}"}),
    )


def _said() -> str:
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"measured by `txlplan hardware probe` on {date}, torch {torch.__version__}, {platform.system()}"


def _points(measured: Measurement, device: DeviceProfile) -> Iterator[EfficiencyPoint]:
    for each in measured.timed:
        case = each.case
        ceiling = device.peak_flops_per_s[case.dtype] if case.kind in PRODUCTS else device.memory_bandwidth_bytes_per_s
        m, n, k = case.shape or (None, None, None)
        yield EfficiencyPoint(
            kind=case.kind,
            dtype=case.dtype,
            work=float(round(case.work)),
            utilisation=float(f"{measured.rate(each) / ceiling:.4g}"),
            m=m,
            n=n,
            k=k,
            threads=each.threads,
            phase=case.phase,
        )


def _spread(measured: Measurement) -> Spread:
    samples = [each.sample for each in measured.timed if each.threads == measured.all_threads]
    repeats = scatter(samples)
    once = min(len(sample.times_s) for sample in samples) == 1
    told = "no repeats, for want of time," if once else f"scatter of repeats ({repeats:.2g})"
    return Spread(
        time_log_sd=float(f"{math.hypot(repeats, _MODEL_LOG_SD):.3g}"),
        memory_log_sd=_MEMORY_LOG_SD,
        source=f"{told} and {_MODEL_LOG_SD:g} assumed for what operations timed one by one miss",
    )
