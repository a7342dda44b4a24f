"""Measure this machine in about a minute and describe it by three profiles: device, system, stack."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from txlplan.choices import Precision
from txlplan.detection._assemble import Circumstances, device_profile, stack_profile, system_profile
from txlplan.detection._case import Rates
from txlplan.detection._closure import closed
from txlplan.detection._cold import cold_memory_given_back
from txlplan.detection._cpu import usable_cpus
from txlplan.detection._detect import detect
from txlplan.detection._graph import exactly
from txlplan.detection._host import Dispatch, dispatch_cost
from txlplan.detection._link import shared_memory_link
from txlplan.detection._measure import Measurement, measure
from txlplan.detection._product_cases import backward, forward, weight_gradient
from txlplan.detection._timing import Progress, Work, nothing, time_call
from txlplan.detection._tokens import Token, compiled_token_host, meeting_s, token_host, token_times
from txlplan.detection._worker import Workers, run_workers
from txlplan.engine.heap import freed_memory_kept
from txlplan.errors import TxlplanError
from txlplan.hardware import Cluster, DeviceProfile, Link, Phase, StackProfile, SystemProfile
from txlplan.nn._own_code import can_compile
from txlplan.nn._suited_products import leave_to_torch, suit_products
from txlplan.nn._widened import has_fast_bf16

_BUDGET_S = 56.0
"""For everything; on an idle machine more than half of it goes to the operations."""
_OPERATIONS_S = 34.0
_WORKERS_SHARE = {"cpu": 0.55, "cuda": 0.75}
"""Of the budget at most: on a busy machine workers are given up rather than the operations. A GPU's take long to start, and
its operations hardly differ from round to round."""
_LINK_SHARE = 0.2
"""Of the budget at most, to measure how processes exchange; less than half of it on an idle machine."""
_SLOWEST_SANE = 0.5
"""A dtype whose products run slower than this share of fp32's is left out, bf16 aside: nobody should train in it."""
_BUSY_OVER_S, _BUSY = 0.3, 0.10
_TYPICAL = {"cpu": (256, 256, 256), "cuda": (4096, 1024, 1024)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """What was measured, as profiles, and what could not be. Its doubts are why another probe would be better."""

    device: DeviceProfile
    system: SystemProfile
    stack: StackProfile
    took_s: float
    notes: tuple[str, ...] = ()


def probe(progress: Progress | None = None, *, budget_s: float = _BUDGET_S) -> ProbeResult:
    """Measure the first GPU that torch can use, else the CPU, within `budget_s` as far as one operation more or less allows.

    Changes torch's number of threads, its products and what the heap does with freed memory meanwhile, and puts all
    back, products to torch's own. Operations find their memory as they do in a worker: in a heap that keeps it.
    """
    start = time.perf_counter()
    detection = detect()
    on_gpu = bool(detection.accelerators) and torch.cuda.is_available()
    where = "cuda" if on_gpu else "cpu"
    synchronize: Work = torch.cuda.synchronize if on_gpu else nothing
    doubts = [*_busy()]
    with freed_memory_kept(), cold_memory_given_back(), _set_up_put_back():
        torch.set_num_threads(1)
        dtypes = _dtypes(where, synchronize)
        leave_to_torch()
        dispatch, tokens = [dispatch_cost(where, synchronize)], [_tokens(where)]
        workers = _workers(where, dtypes, _WORKERS_SHARE[where] * budget_s, progress)
        link, untold = _link(where, _LINK_SHARE * budget_s)
        dispatch.append(dispatch_cost(where, synchronize))
        tokens.append(_tokens(where))
        left_s = min(_OPERATIONS_S, max(0.25 * budget_s, start + budget_s - time.perf_counter()))
        measured = measure(where, dtypes, usable_cpus(), synchronize, left_s, progress)
        torch.set_num_threads(1)
        leave_to_torch()
        dispatch.append(dispatch_cost(where, synchronize))
        tokens.append(_tokens(where))
        met = meeting_s(usable_cpus()) if where == "cpu" else None
    notes = [*detection.notes, *([] if on_gpu or can_compile("attention") else [_NO_COMPILER])]
    notes += [*untold, *_unreached(measured)]
    doubts += [*workers.notes, *_mostly_unreached(measured)]
    circumstances = Circumstances(
        where=where,
        found=detection.devices[0 if on_gpu else -1],
        cpu=detection.cpu,
        dispatch=Dispatch.middle(dispatch),
        meeting_s=met,
    )
    device = device_profile(circumstances, measured)
    stack = stack_profile(circumstances, measured, device)
    system = system_profile(circumstances, device, stack, link)
    middle = [Token.middle(several) for several in zip(*tokens, strict=True)]
    cluster = Cluster(system=system, device=device)
    stack = replace(
        stack,
        token_host=token_host(cluster, stack, middle),
        compiled_token_host=compiled_token_host(cluster, stack, middle),
    )
    stack, unsteady = closed(system, device, stack, workers)
    doubts += unsteady
    stack = replace(stack, doubts="; ".join(doubts))
    took_s = time.perf_counter() - start
    return ProbeResult(device=device, system=system, stack=stack, took_s=took_s, notes=(*notes, *doubts))


def _link(where: str, budget_s: float) -> tuple[Link | None, Sequence[str]]:
    """Between processes on a CPU of several cores, or a note why it is not known."""
    if where != "cpu" or usable_cpus() < 2:
        return None, ()
    try:
        return shared_memory_link(budget_s), ()
    except (OSError, TxlplanError) as error:
        return None, (f"how processes exchange gradients was not measured: {error}",)


def _tokens(where: str) -> list[Token]:
    """On a CPU, by all its cores. Leaves one thread, and products torch's own."""
    if where != "cpu":
        return []
    found = list(token_times(("fp32", "bf16"), usable_cpus()))
    torch.set_num_threads(1)
    leave_to_torch()
    return found


_NO_COMPILER = "no C++ compiler works here: attention in C++, and how fast compiled tokens read, were not measured"


@contextlib.contextmanager
def _set_up_put_back() -> Iterator[None]:
    threads_before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        leave_to_torch()


def _workers(where: str, dtypes: Mapping[str, Rates], budget_s: float, progress: Progress | None) -> Workers:
    """Workers in the precision that a plan for this device most likely has."""
    if progress is not None:
        progress("whole training steps", 0.0)
    narrow = has_fast_bf16() if where == "cpu" else "bf16" in dtypes and _whole(dtypes["bf16"]) > _whole(dtypes["fp32"])
    precision: Precision = "bf16" if narrow else "fp32"
    return run_workers(where, usable_cpus() if where == "cpu" else None, precision, budget_s)


def _busy() -> Iterator[str]:
    """A note when other processes keep the machine busy now."""
    import psutil

    busy = psutil.cpu_percent(interval=_BUSY_OVER_S) / 100
    if busy > _BUSY:
        yield (
            f"the machine is busy (other processes use {busy:.0%} of its CPUs): what is measured now is slower and less "
            "certain than it could be; `txlplan hardware probe` again when it is idle"
        )


def _unreached(measured: Measurement) -> Iterator[str]:
    if missing := measured.unmeasured:
        yield f"{missing} of {missing + len(measured.timed)} operations were not reached in time"


def _mostly_unreached(measured: Measurement) -> Iterator[str]:
    if measured.unmeasured > len(measured.timed):
        yield (
            "predictions by these profiles are not to be relied on: `txlplan hardware probe` again when the machine is idle, "
            "or with more --seconds"
        )


def _dtypes(where: str, synchronize: Work) -> dict[str, Rates]:
    """What is measured: fp32, bf16, and others that are not much slower.

    bf16 is measured also on a CPU that is no faster in it: who asks for it is to be told so.
    """
    others = ["bf16", "fp16"] if where == "cpu" else ["tf32", "bf16", "fp16"] if _has_new_dtypes() else ["fp16"]
    found = {dtype: _rates(dtype, where, synchronize) for dtype in ("fp32", *others)}
    least = _SLOWEST_SANE * _whole(found["fp32"])
    return {dtype: rates for dtype, rates in found.items() if dtype == "bf16" or _whole(rates) > least}


def _has_new_dtypes() -> bool:
    """GPUs compute in tf32 and bf16 since Ampere."""
    return torch.cuda.get_device_capability() >= (8, 0)


def _rates(dtype: str, where: str, synchronize: Work) -> Rates:
    """Of one product and its gradients, large enough that arithmetic decides."""
    found: dict[Phase, float] = {}
    for phase, kind in (("forward", forward), ("backward", backward), ("weights", weight_gradient)):
        case = kind(*_TYPICAL[where], dtype, where)
        with exactly(dtype):
            if where == "cpu":
                suit_products(bf16=dtype == "bf16")
            work = case.build()
            work()
            found[phase] = case.total / min(time_call(work, synchronize) for _ in range(3))
    return found


def _whole(rates: Rates) -> float:
    """FLOP/s of a product with both gradients."""
    return len(rates) / sum(1 / rate for rate in rates.values())
