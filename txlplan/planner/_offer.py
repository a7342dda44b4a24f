"""What could be had: one cluster, or one system in any of several numbers."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.errors import InputError
from txlplan.planner._resolve import Candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A line of a comparison. Of several sizes, the one that serves the ranking best stands for the offer."""

    sizes: tuple[Candidate, ...]
    hypothetical: str = ""
    """What sets a part that does not exist apart from the one it is like: `memory_bandwidth = 3 TB/s`."""
    asked: str = ""
    """The system as it was named: an id, a file, `local`; empty where it came as a profile."""

    def __post_init__(self) -> None:
        if not self.sizes:
            raise InputError("a candidate needs at least one size")

    @property
    def label(self) -> str:
        """`dgx-1`, `2x dgx-1`, `1 to 64 x dgx-1`, and what is hypothetical about it."""
        first, last = self.sizes[0].cluster, self.sizes[-1].cluster
        name = self.sizes[0].label
        if len(self.sizes) > 1:
            name = f"{first.n_nodes} to {last.n_nodes} x {first.system.id}"
        return f"{name} with {self.hypothetical}" if self.hypothetical else name

    def label_of(self, size: Candidate) -> str:
        """Of one of the sizes."""
        return f"{size.label} with {self.hypothetical}" if self.hypothetical else size.label
