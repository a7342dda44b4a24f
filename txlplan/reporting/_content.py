"""What a report says, whatever it is written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from txlplan.errors import RecordError
from txlplan.records import Record, now
from txlplan.reporting._charts import Chart, loss_chart, memory_chart, speed_chart, terms_chart, throughput_chart
from txlplan.reporting._facts import Facts, environment_facts, hardware_facts, model_facts
from txlplan.reporting._format import Formatter, duration_s, moment, number, percent
from txlplan.reporting._tables import Table, comparison_table, trials_table
from txlplan.reporting._verdict import Verdict, verdict
from txlplan.units import format_bytes, format_rate, format_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One headline figure: `throughput`, `5,401 tokens/s`, `predicted 5,200 tokens/s (−3.7 %)`."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that is shown, one run in the foreground."""

    title: str
    made_at: str
    subject: Record
    records: tuple[Record, ...]
    verdict: Verdict
    headline: tuple[Figure, ...]
    hardware: Facts
    model: Facts
    environment: Facts
    comparison: Table
    charts: tuple[Chart, ...]
    trials: Table
    text: str | None
    """What was generated last."""


def build(records: Sequence[Record], title: str | None = None) -> Report:
    """A report on the newest training run among `records` (else the newest run, else the newest record), and all the others.

    A run that ended before its first step comes into the foreground only where there is no other. One that scored
    with its weights gives the held-out figures, and one that generated with them gives the text.
    """
    if not records:
        raise RecordError("a report needs at least one record", hint="`txlplan demo`, or `txlplan run plan.toml`")
    ordered = sorted(records, key=lambda record: (record.kind != "run", record.created_at, record.id))
    runs = [record for record in ordered if record.kind == "run"]
    training = [record for record in runs if record.workload.task == "train" and record.has_result]
    subject = (training or runs or ordered)[-1]
    its_own = [record for record in ordered if record is subject or record.may_use_weights_of(subject)]
    held_out = next((run for run in reversed(its_own) if run.kind == "run" and run.workload.task == "score"), subject)
    charts = (
        throughput_chart(ordered),
        memory_chart(ordered),
        speed_chart(subject),
        loss_chart(subject),
        terms_chart(subject.estimate, "time"),
        terms_chart(subject.estimate, "memory"),
    )
    return Report(
        title=title or f"{subject.workload.model.name or subject.workload.model.id} on {subject.device.name}",
        made_at=moment(now()),
        subject=subject,
        records=tuple(ordered),
        verdict=verdict(subject, held_out),
        headline=_headline(subject, held_out),
        hardware=hardware_facts(subject),
        model=model_facts(subject),
        environment=environment_facts(subject),
        comparison=comparison_table(subject),
        charts=tuple(chart for chart in charts if chart),
        trials=trials_table(ordered),
        text=next((record.text for record in reversed(its_own) if record.text), None),
    )


def _tokens(value: float | None) -> str:
    return format_rate(value, "tokens")


def _headline(record: Record, held_out: Record) -> tuple[Figure, ...]:
    estimate = record.estimate
    speed = _against(estimate.tokens_per_s.value if estimate else None, record.tokens_per_s, _tokens)
    memory = _against(estimate.peak_memory_bytes.value if estimate else None, record.peak_memory_bytes, format_bytes)
    figures = [
        Figure(name="Throughput", value=_tokens(record.tokens_per_s), note=speed),
        Figure(name="Peak memory", value=format_bytes(record.peak_memory_bytes), note=memory),
    ]
    if held_out.bits_per_character is not None:
        note = f"perplexity {number(held_out.perplexity, 2)} a token"
        figures.append(Figure(name="Bits per character", value=number(held_out.bits_per_character), note=note))
    elif held_out.perplexity is not None:
        figures.append(Figure(name="Perplexity", value=number(held_out.perplexity, 2), note="of the held-out split"))
    took = duration_s(record.created_at, record.finished_at)
    figures.append(Figure(name="Time", value=format_s(took), note=f"{len(record.step_s):,} steps"))
    return tuple(figures)


def _against(predicted: float | None, measured: float | None, write: Formatter) -> str:
    """`predicted 5,200 tokens/s, error −3.2 %`."""
    if predicted is None:
        return "no prediction"
    off = f", error {percent(predicted / measured - 1, signed=True)}" if measured else ""
    return f"predicted {write(predicted)}{off}"
