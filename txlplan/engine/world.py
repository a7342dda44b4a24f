"""The processes of one run: which of them this is, as torchrun says in the environment."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from txlplan.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """`rank` of `size` processes; `local_rank` of `local_size` on this node. Alone when nothing launched several."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> World:
        """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE. Raises InputError when one is no number."""
        try:
            rank, size, local_rank, local_size = (
                int(environment.get(name, default))
                for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
            )
        except ValueError as error:
            raise InputError(f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be numbers: {error}") from None
        if not 0 <= rank < size:
            raise InputError(f"RANK = {rank} is not one of WORLD_SIZE = {size} processes")
        return cls(rank=rank, size=size, local_rank=local_rank, local_size=local_size)

    def own_cpus(self, cpus: Collection[int], threads: int) -> set[int]:
        """So many of a node's CPUs that none of its other processes has; all where they do not suffice, or it is alone."""
        if self.local_size == 1 or self.local_size * threads > len(cpus):
            return set(cpus)
        return set(sorted(cpus)[self.local_rank * threads :][:threads])

    @property
    def is_first(self) -> bool:
        """Whether this process writes what there is one of: events, checkpoint state."""
        return self.rank == 0
