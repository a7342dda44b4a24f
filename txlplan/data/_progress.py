"""How preparing tells what it does. Silent unless someone listens."""

from __future__ import annotations


class Progress:
    """Listens to `prepare`; override what is wanted."""

    def begin(self, step: str, total_bytes: int | None) -> None:
        """A step starts: read, split, vocabulary, serialise or merge; it will go over `total_bytes` (None: unknown)."""

    def advance(self, done_bytes: int) -> None:
        """So many bytes more are done."""

    def finish(self) -> None:
        """The step is done."""

    def unchanged(self) -> None:
        """The data set is there already, made of the same inputs and settings; nothing is done."""

    def picked_up(self, step: str) -> None:
        """An interrupted run left this step whole; it is not done again."""
