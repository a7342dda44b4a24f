"""Where a worker's events go: appended to the run directory by the first process, and by whichever fails first."""

from __future__ import annotations

from pathlib import Path

from txlplan import files
from txlplan.engine import events
from txlplan.engine.events import Event, Finished
from txlplan.engine.world import World


class EventLog:
    """`events.jsonl` of a run. It is only ever appended to: a resumed run goes on in it with another `started`.

    What a killed worker left of a line is cut off before.
    """

    def __init__(self, run_directory: Path, world: World) -> None:
        run_directory.mkdir(parents=True, exist_ok=True)
        self._path = run_directory / events.FILE_NAME
        self._offset = files.whole_lines_bytes(self._path)
        self._is_first = world.is_first
        if world.is_first:
            files.cut_unfinished_line(self._path)

    def emit(self, event: Event) -> None:
        """Append an event; on other processes than the first, nothing happens."""
        if self._is_first:
            self._append(event)

    def fail(self, event: Finished) -> None:
        """Append a failure, on any process, unless one that failed earlier (and took this one along) has done so."""
        earlier, _ = events.read(self._path, self._offset)
        if not any(isinstance(other, Finished) for other in earlier):
            self._append(event)

    def _append(self, event: Event) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            events.append(stream, event)
