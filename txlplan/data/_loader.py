"""Segments for training and scoring, so that memory carries over from each segment to the next.

Shapes: B sequences of one rank, T tokens of a segment (`tgt_len`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from txlplan.errors import DataError


class SegmentLoader:
    """Walks `batch * world_size` equally long, contiguous streams of a split; rank r owns streams r*batch to (r+1)*batch.

    Row b of a batch goes on where row b of the batch before ended. At the end of its streams the loader begins again:
    `wrapped` is True after the first batch of each further epoch (then memory must be reset) and `epoch` counts them.
    What the streams hold depends on the global batch only, so 1 process with 2k sequences and 2 with k see the same.
    Tokens that do not fill a segment at the end of each stream are left out.
    """

    def __init__(self, tokens: np.ndarray, *, batch: int, tgt_len: int, rank: int = 0, world_size: int = 1) -> None:
        """`tokens`: shape [tokens], of any integer type. Raises DataError when they do not give each stream one segment."""
        assert 0 <= rank < world_size, (rank, world_size)
        global_batch = batch * world_size
        least = global_batch * (tgt_len + 1)
        if len(tokens) < least:
            raise DataError(
                f"{len(tokens)} tokens are too few for {global_batch} sequences of {tgt_len} + 1 tokens: "
                f"at least {least} are needed",
                hint=_smaller(len(tokens), tgt_len),
            )
        self._stream_len = len(tokens) // global_batch
        streams = tokens[: global_batch * self._stream_len].reshape(global_batch, self._stream_len)
        self._rows = streams[rank * batch : (rank + 1) * batch]
        self._tgt_len, self._global_batch, self._tokens = tgt_len, global_batch, len(tokens)
        self._segment = 0
        self.steps_per_epoch = (self._stream_len - 1) // tgt_len
        self.epoch = 0
        self.wrapped = False

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """The next (inputs_BT, targets_BT), int64; targets are the inputs one token later."""
        self.wrapped = self._segment == self.steps_per_epoch
        if self.wrapped:
            self._segment, self.epoch = 0, self.epoch + 1
        begin = self._segment * self._tgt_len
        window = np.asarray(self._rows[:, begin : begin + self._tgt_len + 1], np.int64)
        self._segment += 1
        return np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])

    def state(self) -> dict[str, int]:
        """The position, for a checkpoint: equal on all ranks."""
        return {
            "epoch": self.epoch,
            "segment": self._segment,
            "tokens": self._tokens,
            "tgt_len": self._tgt_len,
            "global_batch": self._global_batch,
        }

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from `state`. Raises DataError when it was taken over other tokens or another global batch or tgt_len."""
        for key, value in self.state().items():
            if key not in ("epoch", "segment") and state[key] != value:
                raise DataError(
                    f"the loader stopped with {key} = {state[key]} and is to go on with {value}",
                    hint="resume with the data, tgt_len and global batch that the run began with",
                )
        self.epoch, self._segment, self.wrapped = state["epoch"], state["segment"], False


def _smaller(tokens: int, tgt_len: int) -> str:
    largest = tokens // (tgt_len + 1)
    return f"prepare more text, or use at most {largest} sequences" if largest else "prepare more text, or a smaller tgt_len"
