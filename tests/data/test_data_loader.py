from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from txlplan.data import SegmentLoader
from txlplan.errors import DataError

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(2, 120))
"""(batch per rank, world size, tgt_len, tokens)"""


def fitting(shape: tuple[int, int, int, int]) -> tuple[int, int, int, np.ndarray]:
    batch, world, tgt_len, tokens = shape
    assume(tokens >= batch * world * (tgt_len + 1))
    return batch, world, tgt_len, np.arange(tokens, dtype=np.uint16)


@given(SHAPES)
def test_targets_are_the_next_tokens_and_streams_are_contiguous(shape: tuple[int, int, int, int]) -> None:
    batch, world, tgt_len, tokens = fitting(shape)
    loader = SegmentLoader(tokens, batch=batch * world, tgt_len=tgt_len)
    inputs, targets = zip(*(loader.next() for _ in range(loader.steps_per_epoch)), strict=True)
    stream_len = len(tokens) // (batch * world)
    walked = np.concatenate(inputs, axis=1)
    assert walked.shape[1] > stream_len - 1 - tgt_len  # all but less than one segment of each stream
    for row, stream in enumerate(walked):
        assert stream.tolist() == list(range(row * stream_len, row * stream_len + len(stream)))
    assert (np.concatenate(targets, axis=1) == walked + 1).all()
    assert inputs[0].dtype == targets[0].dtype == np.int64
    assert inputs[0].flags.c_contiguous


@given(SHAPES, st.integers(1, 12))
def test_ranks_together_see_what_one_process_sees(shape: tuple[int, int, int, int], steps: int) -> None:
    batch, world, tgt_len, tokens = fitting(shape)
    one = SegmentLoader(tokens, batch=batch * world, tgt_len=tgt_len)
    ranks = [SegmentLoader(tokens, batch=batch, tgt_len=tgt_len, rank=rank, world_size=world) for rank in range(world)]
    for _ in range(steps):
        whole, parts = one.next(), [loader.next() for loader in ranks]
        for index in (0, 1):
            assert (np.concatenate([part[index] for part in parts]) == whole[index]).all()
        assert all((loader.epoch, loader.wrapped, loader.state()) == (one.epoch, one.wrapped, one.state()) for loader in ranks)


@given(SHAPES, st.integers(0, 30), st.integers(1, 10))
def test_a_restored_loader_goes_on_as_if_never_stopped(shape: tuple[int, int, int, int], done: int, more: int) -> None:
    batch, world, tgt_len, tokens = fitting(shape)
    loader = SegmentLoader(tokens, batch=batch, tgt_len=tgt_len, rank=world - 1, world_size=world)
    for _ in range(done):
        loader.next()
    other = SegmentLoader(tokens, batch=batch, tgt_len=tgt_len, rank=world - 1, world_size=world)
    other.restore(loader.state())
    for _ in range(more):
        assert (loader.next()[0] == other.next()[0]).all()
        assert (loader.wrapped, loader.epoch) == (other.wrapped, other.epoch)


@given(SHAPES)
def test_each_epoch_begins_again_and_says_so(shape: tuple[int, int, int, int]) -> None:
    batch, _, tgt_len, tokens = fitting(shape)
    loader = SegmentLoader(tokens, batch=batch, tgt_len=tgt_len)
    seen = []
    for _ in range(3 * loader.steps_per_epoch):
        inputs, _ = loader.next()
        seen.append((inputs.tolist(), loader.wrapped, loader.epoch))
    steps = loader.steps_per_epoch
    assert [entry[0] for entry in seen[:steps]] * 3 == [entry[0] for entry in seen]
    assert [index for index, entry in enumerate(seen) if entry[1]] == [steps, 2 * steps]
    assert [entry[2] for entry in seen] == [0] * steps + [1] * steps + [2] * steps


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 60))
def test_too_few_tokens_are_refused_with_the_numbers(batch: int, tgt_len: int, tokens: int) -> None:
    least = batch * (tgt_len + 1)
    if tokens >= least:
        assert SegmentLoader(np.zeros(tokens), batch=batch, tgt_len=tgt_len).steps_per_epoch >= 1
        return
    with pytest.raises(DataError, match=f"^{tokens} tokens are too few for {batch} .*at least {least}") as caught:
        SegmentLoader(np.zeros(tokens), batch=batch, tgt_len=tgt_len)
    assert "prepare more text" in str(caught.value.hint)


@pytest.mark.parametrize("key", ["tokens", "tgt_len", "global_batch"])
def test_a_state_of_another_shape_is_refused_with_what_differs(key: str) -> None:
    loader = SegmentLoader(np.arange(100), batch=2, tgt_len=4)
    with pytest.raises(DataError, match=f"{key} = 77"):
        loader.restore(loader.state() | {key: 77})


def test_a_checkpoint_of_one_process_goes_on_with_two() -> None:
    tokens = np.arange(200)
    one = SegmentLoader(tokens, batch=4, tgt_len=5)
    one.next()
    two = [SegmentLoader(tokens, batch=2, tgt_len=5, rank=rank, world_size=2) for rank in (0, 1)]
    for loader in two:
        loader.restore(one.state())
    assert (np.concatenate([loader.next()[0] for loader in two]) == one.next()[0]).all()
