"""A split cut into streams and segments such that every token is scored exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """`rows` contiguous streams over the `n_targets` tokens that have a predecessor, the last ones padded.

    Row r predicts the targets from r·length on; segment i of it those from i·tgt_len on within the row.
    """

    tokens: NDArray[np.unsignedinteger]
    rows: int
    tgt_len: int

    def __post_init__(self) -> None:
        assert self.rows >= 1
        assert self.tgt_len >= 1

    @property
    def n_targets(self) -> int:
        """Tokens that are predicted: all but the first."""
        return max(0, len(self.tokens) - 1)

    @property
    def length(self) -> int:
        """Targets in a row."""
        return -(-self.n_targets // self.rows)

    def __len__(self) -> int:
        """Segments in a row."""
        return -(-self.length // self.tgt_len)

    def segments(self, first_row: int, n_rows: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
        """Inputs, targets and which targets count, each [n_rows, tgt_len], of rows first_row, first_row + 1, …"""
        starts_R1 = (np.arange(first_row, first_row + n_rows) * self.length)[:, None]
        for segment in range(len(self)):
            within_1T = np.arange(segment * self.tgt_len, (segment + 1) * self.tgt_len)[None, :]
            index_RT = starts_R1 + within_1T
            counted_RT = (within_1T < self.length) & (index_RT < self.n_targets)
            safe_RT = np.where(counted_RT, index_RT, 0)
            yield self.tokens[safe_RT].astype(np.int64), self.tokens[safe_RT + 1].astype(np.int64), counted_RT
