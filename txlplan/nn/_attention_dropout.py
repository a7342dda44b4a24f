"""What dropout keeps of attention's probabilities, drawn once or twice alike."""

from __future__ import annotations

import torch
from torch import Tensor

from txlplan.nn._dropout import keep_mask


class DropoutOfScores:
    """Of probabilities [B, H, T, S]. `again`: what `draw` gives is not kept, and `draw_again` gives it once more."""

    def __init__(self, shape: tuple[int, int, int, int], rate: float, device: torch.device, *, again: bool) -> None:
        self._shape, self._rate, self._device = shape, rate, device
        self._state = torch.get_rng_state() if rate and again else None

    def draw(self) -> Tensor | None:
        """1 for what is kept, else 0; None: all is."""
        return keep_mask(self._shape, self._rate, self._device) if self._rate else None

    def draw_again(self) -> Tensor | None:
        """The same as before; the generator goes on from where it is."""
        if self._state is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            return self.draw()
