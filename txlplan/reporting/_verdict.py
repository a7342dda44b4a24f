"""The first sentence of a report: what happened, how fast, and whether the prediction held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from txlplan.estimates import Range
from txlplan.records import Record
from txlplan.reporting._format import Formatter, number, percent
from txlplan.units import format_bytes, format_rate

_DONE = {"train": "trained", "score": "was scored", "generate": "generated text"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A sentence, what follows it, and how it should look."""

    sentence: str
    details: tuple[str, ...]
    tone: Literal["good", "fair", "bad", "neutral"]
    """good: all measurements lie in their ranges; fair: one does not; bad: the run failed; neutral: nothing to judge."""


def verdict(record: Record) -> Verdict:
    """Judge one record by the estimate made before it ran."""
    subject = record.workload.model.name or record.workload.model.id
    place = f"on {record.n_devices} × {record.device.name}" if record.n_devices > 1 else f"on {record.device.name}"
    ended_badly = {
        "running": f"{subject} is still running {place}.",
        "oom": f"{subject} ran out of memory {place}{_expected(record)}.",
        "failed": f"{subject} failed {place}: {record.message or 'no reason was recorded'}.",
    }
    if record.outcome in ended_badly:
        tone: Literal["neutral", "bad"] = "neutral" if record.outcome == "running" else "bad"
        return Verdict(sentence=ended_badly[record.outcome], details=_details(record), tone=tone)
    stopped = f" until it was stopped after {len(record.step_s)} steps" if record.outcome == "stopped" else ""
    speed = f" at {format_rate(record.tokens_per_s, 'tokens')}" if record.tokens_per_s is not None else ""
    claims = "; ".join(filter(None, (_speed_claim(record), _memory_claim(record))))
    sentence = f"{subject} {_DONE[record.workload.task]}{speed} {place}{stopped}{f': {claims}' if claims else ''}."
    return Verdict(sentence=sentence, details=_details(record), tone=_tone(record))


def _speed_claim(record: Record) -> str:
    if record.estimate is None or record.tokens_per_s is None:
        return ""
    return _claim(record.tokens_per_s, record.estimate.tokens_per_s, ("faster", "slower"), lambda v: format_rate(v, "tokens"))


def _memory_claim(record: Record) -> str:
    if record.estimate is None or record.peak_memory_bytes is None:
        return ""
    claim = _claim(record.peak_memory_bytes, record.estimate.peak_memory_bytes, ("more", "less"), format_bytes)
    return f"memory peaked at {format_bytes(record.peak_memory_bytes)}, {claim}"


def _claim(measured: float, predicted: Range, words: tuple[str, str], write: Formatter) -> str:
    """`3.9 % faster than the predicted 5,200 tokens/s, inside its 80 % range`."""
    if not predicted.value:
        return "nothing was predicted"
    difference = measured / predicted.value - 1
    word = words[0] if difference >= 0 else words[1]
    inside = "inside" if measured in predicted else "outside"
    return f"{percent(abs(difference))} {word} than the predicted {write(predicted.value)}, {inside} its 80 % range"


def _expected(record: Record) -> str:
    if record.estimate is None:
        return ""
    need, capacity = format_bytes(record.estimate.peak_memory_bytes.value), format_bytes(record.estimate.capacity_bytes)
    return f", {'though predicted to fit' if record.estimate.fits else 'as predicted'} ({need} of {capacity})"


def _details(record: Record) -> tuple[str, ...]:
    details = []
    if record.bits_per_character is not None:
        details.append(f"Held-out score: {number(record.bits_per_character)} bits per character.")
    elif record.perplexity is not None:
        details.append(f"Held-out perplexity: {number(record.perplexity, 2)}.")
    if record.estimate is None:
        details.append("No estimate was made before the run, so nothing can be compared.")
    elif record.estimate.extrapolated:
        details.append("The prediction was extrapolated: its stack was measured on another device or on other shapes.")
    return tuple(details)


def _tone(record: Record) -> Literal["good", "fair", "neutral"]:
    estimate = record.estimate
    if estimate is None:
        return "neutral"
    pairs = ((record.tokens_per_s, estimate.tokens_per_s), (record.peak_memory_bytes, estimate.peak_memory_bytes))
    inside = [measured in predicted for measured, predicted in pairs if measured is not None]
    return ("good" if all(inside) else "fair") if inside else "neutral"
