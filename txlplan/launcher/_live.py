"""What a person sees of a run while it goes on: one live line on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from txlplan.engine.events import Evaluated, Evaluating, Event, Noted, Saved, Started
from txlplan.estimates import Estimate
from txlplan.launcher._progress import Progress
from txlplan.units import format_bytes, format_rate, format_s

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_EVERY_S = 10.0
"""How often a line is written where stderr is no terminal."""


class LiveView:
    """A context manager whose `on_event` goes to `execute`. Writes to stderr only."""

    def __init__(
        self,
        *,
        warmup_steps: int,
        estimate: Estimate | None,
        label: str = "",
        steps: int | None = None,
        bits: bool = False,
        stream: Any = None,
    ) -> None:
        """`steps`: the run ends after so many; `bits`: tokens are bytes or characters, so that the loss in bits is bits per
        character."""
        self._progress = Progress(warmup_steps=warmup_steps)
        self._estimate = estimate
        self._label = label
        self._steps = steps
        self._bits = bits
        self._stream = stream or sys.stderr
        self._live: Live | None = None
        self._next_s = 0.0
        self._written = ""

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._stream), refresh_per_second=4, transient=True)
            self._live.start()
        self._show("starting the worker")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        if self._progress.step_s and self.line() != self._written:
            self._write(self.line())

    def on_event(self, event: Event) -> None:
        """Show what an event changes."""
        self._progress.add(event)
        if isinstance(event, Started) and self._steps is not None:
            end = event.step + self._steps
            self._progress.total_steps = end if event.total_steps is None else min(end, event.total_steps)
        if isinstance(event, Evaluated | Saved | Noted):
            self._tell(_told(event))
        elif isinstance(event, Evaluating):
            self._show(f"step {event.step:,}: scoring {event.split} ({event.segments:,} segments)")
        elif self._live is not None:
            self._show(self.line())
        elif self._progress.step_s and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PLAIN_EVERY_S
            self._write(self.line())

    def line(self) -> str:
        """Step, loss, tokens/s beside the predicted ones, memory, time left."""
        progress = self._progress
        parts = [self._label, f"step {progress.step:,}" + (f"/{progress.total_steps:,}" if progress.total_steps else "")]
        if progress.train_losses:
            parts.append(_loss(progress.train_losses[-1].loss, bits=self._bits))
        if progress.tokens_per_s is not None:
            parts.append(format_rate(progress.tokens_per_s, "tokens") + self._predicted())
        if progress.memory_bytes is not None:
            parts.append(format_bytes(progress.memory_bytes))
        if progress.remaining_s:
            parts.append(f"{format_s(progress.remaining_s)} left")
        return " · ".join(part for part in parts if part)

    def _predicted(self) -> str:
        return f" (predicted {format_rate(self._estimate.tokens_per_s.value, 'tokens')})" if self._estimate else ""

    def on_stop(self) -> None:
        """Say that the run was asked to stop, and what will happen."""
        self._tell("stopping after this step; Ctrl-C once more ends it at once")

    def _show(self, text: str) -> None:
        """What goes on now: the live line, or a line in a pipe."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(" · ".join(filter(None, (self._label, text))), no_wrap=True, overflow="ellipsis"))
        else:
            self._write(text)

    def _tell(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        self._written = text
        self._stream.write(text + "\n")
        self._stream.flush()


def _loss(nats: float, *, bits: bool) -> str:
    if bits:
        return f"loss {nats:.3f} ({nats / math.log(2):.3f} bpc)"
    return f"loss {nats:.3f} (ppl {math.exp(min(nats, 50.0)):,.1f})"


def _told(event: Evaluated | Saved | Noted) -> str:
    if isinstance(event, Noted):
        return event.text
    if isinstance(event, Saved):
        return f"step {event.step:,}: checkpoint {event.path}"
    bits = "" if event.bits_per_character is None else f", {event.bits_per_character:.3f} bits per character"
    return f"step {event.step:,}: {event.split} loss {event.loss:.3f}, perplexity {event.perplexity:,.2f}{bits}"
