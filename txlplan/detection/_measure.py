"""Time every case with every number of threads, interleaved, and the copy bandwidth that the utilisations refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from txlplan.detection._case import Case, Rates
from txlplan.detection._cases import cases, elementwise
from txlplan.detection._gpu_cases import gpu_cases
from txlplan.detection._graph import REPEATS, captured
from txlplan.detection._product_cases import bare, between
from txlplan.detection._reading import READ_BYTES, reading
from txlplan.detection._timing import Progress, Sample, Work, time_in_rounds
from txlplan.engine.compiler_cache import keep_compiled_code
from txlplan.hardware import PRODUCTS, TokenReading
from txlplan.nn._own_code import can_compile
from txlplan.nn._suited_products import suit_products

COPY_BYTES = {"cpu": 96 << 20, "cuda": 512 << 20}
"""Of each of two tensors: together many times the largest cache of most desktops, or of GPUs, small enough for any machine."""

_LONGEST_S = 0.12
"""Of one call; what would take longer is left out."""
_LEAST_SHARE = 0.2
"""At least this share of a small operation's time is its work: dispatch is subtracted no further."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """One case with one number of CPU threads."""

    case: Case
    threads: int | None
    sample: Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Everything that was timed."""

    bandwidth_bytes_per_s: float
    """Of a copy between tensors that no cache holds: bytes read and written."""
    readings: tuple[TokenReading, ...]
    """By the code that reads tokens, of few bytes and of many; empty: no CPU, or no compiler."""
    dispatch_s: float
    """Bare dispatch of one operation on a tiny tensor, forward and backward, part of every operation timed so; on a GPU, whose
    kernels no host dispatches while they are timed, what starting one takes."""
    plain_dispatch_s: float
    """The same without gradients, as products are timed."""
    between_s: float
    """What follows each operation that is timed apart; 0 on a GPU."""
    timed: Sequence[Timed]
    all_threads: int | None
    """None: no CPU."""
    unmeasured: int
    """Cases that the budget did not reach."""

    def peaks(self) -> dict[str, float]:
        """Best rate of any product by dtype, FLOP/s."""
        best: dict[str, float] = {}
        for each in self.timed:
            if each.case.kind in PRODUCTS:
                best[each.case.dtype] = max(best.get(each.case.dtype, 0.0), self.rate(each))
        return best

    def rate(self, timed: Timed) -> float:
        """FLOP/s or bytes/s of a case, what dispatching its operations takes left out."""
        seconds = timed.sample.seconds
        dispatch_s = self.dispatch_s if timed.case.phase is None else self.plain_dispatch_s
        dispatch_s += self.between_s if timed.case.is_apart else 0.0
        return timed.case.total / max(seconds - timed.case.operations * dispatch_s, _LEAST_SHARE * seconds)


def measure(
    where: str, dtypes: Mapping[str, Rates], all_threads: int, synchronize: Work, budget_s: float, progress: Progress | None
) -> Measurement:
    """On a CPU with all threads, with one, and on a larger machine with half of them, each a third as often; on CUDA once.

    `dtypes`: each with its rates, by which products that would take long are left out.
    """
    keep_compiled_code()
    counts: list[int | None] = [None] if where != "cpu" else [*dict.fromkeys((all_threads, 1, max(1, all_threads // 2)))]
    everything = [
        (count, case)
        for count in counts
        for dtype, rates in dtypes.items()
        for case in (cases(dtype) if where == "cpu" else gpu_cases(dtype))
        if _is_short(case, rates) and (where == "cpu" or _has_kernel(case))
    ]
    with_gradients, plain = elementwise(1, "fp32", where), bare(where)
    one = None if where != "cpu" else 1
    reads = [(threads, size) for threads in counts if threads for size in READ_BYTES] if can_compile("token") else []
    readers = [_set_up(threads, "fp32", partial(reading, size)) for threads, size in reads]
    others = [_set_up(1, "fp32", between)] if where == "cpu" else []
    builders = [
        _set_up(counts[0], "fp32", lambda: _copy_builder(where)),
        *(_set_up(one, case.dtype, case.build) for case in (with_gradients, plain)),
        *others,
        *readers,
        *(_set_up(count, case.dtype, case.build, few_rows=case.is_apart) for count, case in everything),
    ]
    if where == "cuda":
        dtypes_of = ["fp32"] * 3 + [case.dtype for _, case in everything]
        builders = [captured(build, dtype) for build, dtype in zip(builders, dtypes_of, strict=True)]
    calls = REPEATS if where == "cuda" else 1
    always = 3 + len(others) + len(readers) + 1  # and a product, for a peak
    fewer_threads = {
        place for place, (count, _) in enumerate(everything, start=len(builders) - len(everything)) if count != counts[0]
    }
    timed_calls = time_in_rounds(builders, synchronize, budget_s, progress, always=always, seldom=fewer_threads)
    bandwidth, dispatch, plain_dispatch, *samples = (sample and sample.of_one(calls) for sample in timed_calls)
    assert bandwidth is not None, "the copy is timed first"
    assert dispatch is not None, "bare dispatch is timed next"
    assert plain_dispatch is not None, "and without gradients"
    others_s, samples = samples[: len(others)], samples[len(others) :]
    read, samples = samples[: len(readers)], samples[len(readers) :]
    timed = [
        Timed(case=case, threads=count, sample=sample)
        for (count, case), sample in zip(everything, samples, strict=True)
        if sample is not None
    ]
    return Measurement(
        bandwidth_bytes_per_s=2 * COPY_BYTES[where] / bandwidth.seconds,
        readings=tuple(
            TokenReading(read_bytes=size, threads=threads, bandwidth_bytes_per_s=float(f"{size / sample.seconds:.4g}"))
            for (threads, size), sample in zip(reads, read, strict=True)
            if sample is not None
        ),
        dispatch_s=min(dispatch.times_s) / with_gradients.operations,
        plain_dispatch_s=min(plain_dispatch.times_s) / plain.operations,
        between_s=others_s[0].seconds if others_s and others_s[0] else 0.0,
        timed=timed,
        all_threads=counts[0],
        unmeasured=len(everything) - len(timed),
    )


def _is_short(case: Case, rates: Rates) -> bool:
    """Whether one call takes no longer than it may, of products by their rates."""
    return case.kind not in PRODUCTS or case.phase is None or case.total <= _LONGEST_S * rates[case.phase]


def _has_kernel(case: Case) -> bool:
    """Whether this GPU computes it: older ones have no kernels of some dtypes and widths, small ones no room for some sizes."""
    try:
        case.build()()
    except RuntimeError:
        return False
    return True


def _set_up(threads: int | None, dtype: str, build: Callable[[], Work], *, few_rows: bool = False) -> Callable[[], Work]:
    """On a CPU, as a worker with so many threads and that precision does, for single tokens or for others; on CUDA (None)
    nothing is to do."""

    def set_up_and_build() -> Work:
        if threads is not None:
            torch.set_num_threads(threads)
            suit_products(bf16=dtype == "bf16", few_rows=few_rows)
        return build()

    return set_up_and_build


def _copy_builder(where: str) -> Work:
    source = torch.full((COPY_BYTES[where] // 4,), 0.5, device=where)
    target = torch.full_like(source, 0.25)

    def work() -> None:
        if where == "cuda":  # by a kernel, as all of a step's: torch copies by the driver's engine, which is slower
            torch.mul(source, 0.5, out=target)
        else:
            target.copy_(source)

    return work
