"""The first sentence of a report: what happened, how fast, and whether the prediction held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from txlplan.estimates import Range
from txlplan.records import Record
from txlplan.reporting._format import number, percent
from txlplan.units import format_bytes, format_rate

_EXACT = 0.001
_DONE = {"train": "trained", "score": "was scored", "generate": "generated text"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A sentence, what follows it, and how it should look."""

    sentence: str
    details: tuple[str, ...]
    tone: Literal["good", "fair", "bad", "neutral"]
    """good: all measurements lie in their ranges; fair: one does not; bad: the run failed; neutral: no speed to judge."""


def verdict(record: Record, held_out: Record | None = None) -> Verdict:
    """Judge one record by the estimate made before it ran; `held_out` scored the same model, where another run did that."""
    subject = record.workload.model.name or record.workload.model.id
    place = f"on {record.n_devices} × {record.device.name}" if record.n_devices > 1 else f"on {record.device.name}"
    ended_badly = {
        "running": f"{subject} is still running {place}.",
        "oom": f"{subject} ran out of memory {place}{_expected(record)}.",
        "failed": f"{subject} failed {place}: {record.message or 'no reason was recorded'}.",
    }
    if record.outcome in ended_badly:
        tone: Literal["neutral", "bad"] = "neutral" if record.outcome == "running" else "bad"
        return Verdict(sentence=ended_badly[record.outcome], details=_details(record, held_out or record), tone=tone)
    stopped = f" until it was stopped after {len(record.step_s)} steps" if record.outcome == "stopped" else ""
    speed = f" at {format_rate(record.tokens_per_s, 'tokens')}" if record.tokens_per_s is not None else ""
    peak = f" with a peak of {format_bytes(record.peak_memory_bytes)}" if record.peak_memory_bytes is not None else ""
    sentence = f"{subject} {_DONE[record.workload.task]}{speed} {place}{peak}{stopped}{_claims(record)}."
    return Verdict(sentence=sentence, details=_details(record, held_out or record), tone=_tone(record))


def _claims(record: Record) -> str:
    """`: throughput was predicted 3.2 % too low and peak memory 4.4 % too low, both inside their 80 % ranges`."""
    judged = [
        (f"{name} was predicted" if index == 0 else name, _error(measured, predicted), measured in predicted)
        for index, (name, measured, predicted) in enumerate(_pairs(record))
    ]
    if not judged:
        return ""
    if len({inside for *_, inside in judged}) == 1:
        where = "inside" if judged[0][2] else "outside"
        ranges = f"both {where} their 80 % ranges" if len(judged) > 1 else f"{where} its 80 % range"
        return ": " + " and ".join(f"{what} {error}" for what, error, _ in judged) + f", {ranges}"
    placed = (f"{what} {error} ({'inside' if inside else 'outside'} its 80 % range)" for what, error, inside in judged)
    return ": " + " and ".join(placed)


def _pairs(record: Record) -> list[tuple[str, float, Range]]:
    """What was both predicted and measured; a peak without a step, which older records hold, is none of the run."""
    if record.estimate is None or not record.has_result:
        return []
    measured = (
        ("throughput", record.tokens_per_s, record.estimate.tokens_per_s),
        ("peak memory", record.peak_memory_bytes, record.estimate.peak_memory_bytes),
    )
    return [(name, value, predicted) for name, value, predicted in measured if value]


def _error(measured: float, predicted: Range) -> str:
    """The error as tables have it, predicted / measured − 1, in words."""
    error = predicted.value / measured - 1
    if abs(error) < _EXACT:
        return "to within 0.1 %"
    return f"{percent(abs(error))} too {'high' if error > 0 else 'low'}"


def _expected(record: Record) -> str:
    if record.estimate is None:
        return ""
    need, capacity = format_bytes(record.estimate.peak_memory_bytes.value), format_bytes(record.estimate.capacity_bytes)
    return f", {'though predicted to fit' if record.estimate.fits else 'as predicted'} ({need} of {capacity})"


def _details(record: Record, scored: Record) -> tuple[str, ...]:
    details = []
    if scored.bits_per_character is not None:
        details.append(f"Held-out score: {number(scored.bits_per_character)} bits per character.")
    elif scored.perplexity is not None:
        details.append(f"Held-out perplexity: {number(scored.perplexity, 2)}.")
    if record.estimate is None:
        details.append("No estimate was made before the run, so nothing can be compared.")
    elif not record.has_result and record.outcome != "running":
        details.append("No step was measured, so nothing can be compared.")
    elif record.estimate.extrapolated:
        details.append("The prediction was extrapolated: its stack was measured on another device or on other shapes.")
    return tuple(details)


def _tone(record: Record) -> Literal["good", "fair", "neutral"]:
    inside = {name: measured in predicted for name, measured, predicted in _pairs(record)}
    if not all(inside.values()):
        return "fair"
    return "good" if "throughput" in inside else "neutral"
