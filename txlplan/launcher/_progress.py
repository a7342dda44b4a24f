"""What a worker's events add up to: the running totals that the live view shows and the record keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from txlplan.engine.events import Evaluated, Event, Finished, Generated, Saved, Started, Step
from txlplan.records import LossPoint

TEXT_SEPARATOR = "\n-----\n"
"""Between the texts of several rows in a record."""
LOSS_POINTS = 1000
"""A record's training loss curve is averaged down to at most this many points."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """Totals of one worker's events, in the order in which they came."""

    warmup_steps: int
    first_step: int = 0
    """Steps that were done before this worker started."""
    step: int = 0
    total_steps: int | None = None
    step_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    """Of each step, over all devices."""
    train_losses: list[LossPoint] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    memory_bytes: int | None = None
    saved: Saved | None = None
    text: str | None = None
    """All that was generated, a blank line between one row's text and the next's."""
    finished: Finished | None = None

    def add(self, event: Event, *, split: str = "train") -> None:
        """Take one event into account; `split` is the one whose loss the steps report."""
        if isinstance(event, Started):
            self.first_step = self.step = event.step
            self.total_steps = event.total_steps
        elif isinstance(event, Step):
            self._add_step(event, split)
        elif isinstance(event, Evaluated):
            self.evaluations.append(event)
        elif isinstance(event, Saved):
            self.saved = event
        elif isinstance(event, Generated):
            self.text = event.text if self.text is None else f"{self.text}{TEXT_SEPARATOR}{event.text}"
        elif isinstance(event, Finished):
            self.finished = event

    def _add_step(self, event: Step, split: str) -> None:
        self.step = event.step
        self.step_s.append(event.step_s)
        self.tokens.append(event.tokens)
        if event.memory_bytes is not None:
            self.memory_bytes = event.memory_bytes
        if event.loss is not None and math.isfinite(event.loss):
            self.train_losses.append(LossPoint(step=event.step, split=split, loss=event.loss))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the steps after warm-up over their time; None while there are none."""
        return rate(self.tokens, self.step_s, self.warmup_steps)

    @property
    def remaining_s(self) -> float | None:
        """Time left at the median pace of the latest steps; None where the number of steps or the pace is unknown."""
        recent = sorted(self.step_s[-20:])
        if self.total_steps is None or not recent:
            return None
        return max(0, self.total_steps - self.step) * recent[len(recent) // 2]

    def losses(self) -> tuple[LossPoint, ...]:
        """The loss curves: the steps' own, thinned, then every evaluation."""
        evaluated = (LossPoint(step=event.step, split=event.split, loss=event.loss) for event in self.evaluations)
        return (*thinned(self.train_losses, LOSS_POINTS), *evaluated)


def rate(tokens: list[int], step_s: list[float], warmup_steps: int) -> float | None:
    """Total tokens over total time of the steps after warm-up; None where there are none."""
    time_s = sum(step_s[warmup_steps:])
    return sum(tokens[warmup_steps:]) / time_s if time_s > 0 else None


def thinned(points: list[LossPoint], most: int) -> list[LossPoint]:
    """At most `most` points: runs of equal length, each its mean loss at its last step."""
    length = -(-len(points) // most)
    if length <= 1:
        return list(points)
    runs = [points[start : start + length] for start in range(0, len(points), length)]
    return [LossPoint(step=run[-1].step, split=run[-1].split, loss=sum(p.loss for p in run) / len(run)) for run in runs]
