"""How `txlplan data prepare` tells of its progress. Imported only inside the command: it needs rich."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from txlplan.cli._output import Output
from txlplan.data import Progress
from txlplan.units import format_bytes, format_bytes_per_s, format_s

_LINE_EVERY_S = 10.0
_REDRAW_EVERY_S = 0.1


class ShownProgress(Progress):
    """On a terminal a bar for each step; else a line when a step ends, and every ten seconds while it lasts."""

    def __init__(self) -> None:
        self.is_unchanged = False
        self._out = Output()
        self._bars = _bars() if sys.stderr.isatty() else None
        self._step, self._done = "", 0
        self._total: int | None = None
        self._began = self._told = 0.0

    def begin(self, step: str, total_bytes: int | None) -> None:
        self._step, self._total, self._done = step, total_bytes, 0
        self._began = self._told = time.monotonic()
        if self._bars:
            self._bars.start()
            self._task = self._bars.add_task(step, total=total_bytes)

    def advance(self, done_bytes: int) -> None:
        self._done += done_bytes
        now = time.monotonic()
        if self._bars and now - self._told >= _REDRAW_EVERY_S:
            self._redraw()
            self._told = now
        elif not self._bars and now - self._told >= _LINE_EVERY_S:
            of = "" if self._total is None else f" of {format_bytes(self._total)}"
            self._out.say(f"{self._step}: {format_bytes(self._done)}{of}, {self._speed(now)}")
            self._told = now

    def finish(self) -> None:
        now = time.monotonic()
        if self._bars:
            self._redraw()
        else:
            self._out.say(f"{self._step}: {format_bytes(self._done)} in {format_s(now - self._began)}, {self._speed(now)}")

    def unchanged(self) -> None:
        self.is_unchanged = True

    def picked_up(self, step: str) -> None:
        self._out.say(f"{step}: kept from the run that was interrupted")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars:
            self._bars.stop()

    def _redraw(self) -> None:
        assert self._bars
        self._bars.update(self._task, completed=self._done)
        self._bars.refresh()

    def _speed(self, now: float) -> str:
        return format_bytes_per_s(self._done / max(now - self._began, 1e-9))


def _bars() -> Bars:
    """Bars without a thread that redraws them: workers are forked while they are shown."""
    from rich.console import Console

    columns = (
        TextColumn("{task.description:10s}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=Console(file=sys.stderr), auto_refresh=False)
