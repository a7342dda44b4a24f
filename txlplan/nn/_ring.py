"""Keys and values of what a model has read, kept so that no token is projected twice.

Shape suffixes: L layers, B rows, H heads, M = mem_len memory slots, T tokens read at once, S = filled slots + T keys, K width
of a head.

A window of memory and new tokens slides through one preallocated buffer, oldest token first. At the end of the buffer the
memory is copied to its beginning, once in at least M / 2 tokens: nothing is allocated while reading, a token costs the same
however many came before, and a window is always a plain view.
"""

from __future__ import annotations

import torch
from torch import Tensor

from txlplan.model import ModelConfig


class KeyValueRing:
    """Room for `longest` new tokens of each row beside the memory. `filled` says how many memory slots of each row are real."""

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        *,
        longest: int,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
    ) -> None:
        self._slots, self._longest = config.mem_len, longest
        steps = max(1, -(-config.mem_len // (2 * longest)))
        shape = (config.n_layer, rows, config.n_head, config.mem_len + steps * longest, config.d_head)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._end = config.mem_len
        self.filled = [0] * rows

    @property
    def rows(self) -> int:
        """Rows that are read together."""
        return self._keys.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self._keys.dtype

    @property
    def device(self) -> torch.device:
        """Of keys and values."""
        return self._keys.device

    @property
    def longest(self) -> int:
        """Most tokens that are read at once."""
        return self._longest

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """All keys and all values."""
        return self._keys, self._values

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return 2 * self._keys.nbytes

    def make_room(self, tokens: int) -> None:
        """Slide back when the buffer ends within the next `tokens`."""
        assert tokens <= self._longest
        if self._end + tokens <= self._keys.shape[3]:
            return
        for buffer in self.buffers:
            for layer in buffer.unbind(0):
                layer[:, :, : self._slots] = layer[:, :, self._end - self._slots : self._end].clone()
        self._end = self._slots

    def windows(self, slots: int, tokens: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [B, H, slots + tokens, K] of each layer: the last slots, then where the new tokens' go."""
        views = (buffer.unbind(0) for buffer in self.window(slots, tokens))
        return list(zip(*views, strict=True))

    def window(self, slots: int, tokens: int) -> tuple[Tensor, Tensor]:
        """The same of all layers, [L, B, H, slots + tokens, K] each."""
        start, size = self._end - slots, slots + tokens
        keys, values = (buffer.narrow(3, start, size) for buffer in self.buffers)
        return keys, values

    def advance(self, tokens: int) -> None:
        """The new tokens become memory, and what is beyond it is forgotten."""
        self._end += tokens
        self.filled = [min(slots + tokens, self._slots) for slots in self.filled]

    def remember(self, row: int, other: KeyValueRing) -> None:
        """Take over the memory of a ring of one row, newest slot last."""
        for mine, theirs in ((self._keys, other._keys), (self._values, other._values)):
            mine[:, row, :, self._end - self._slots : self._end] = theirs[:, 0, :, other._end - other._slots : other._end]
        self.filled[row] = other.filled[0]
