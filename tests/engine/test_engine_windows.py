from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from txlplan.engine.windows import Windows


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 12), st.integers(1, 3))
def test_every_target_counts_once_and_in_order(n_tokens, rows_per_process, tgt_len, processes):
    tokens = np.arange(n_tokens, dtype=np.uint8)
    windows = Windows(tokens=tokens, rows=rows_per_process * processes, tgt_len=tgt_len)
    seen = []
    for process in range(processes):
        segments = list(windows.segments(process * rows_per_process, rows_per_process))
        assert len(segments) == len(windows)
        for inputs, targets, counted in segments:
            assert inputs.shape == targets.shape == counted.shape == (rows_per_process, tgt_len)
            assert inputs.dtype == targets.dtype == np.int64
            assert (targets - inputs == 1).all()
            seen.extend(targets[counted])
    assert sorted(seen) == list(range(1, n_tokens))


def test_rows_go_on_where_the_segment_before_ended():
    windows = Windows(tokens=np.arange(21, dtype=np.uint16), rows=2, tgt_len=4)
    (one, *_), (two, *_), (three, _, counted) = windows.segments(0, 2)
    assert one.tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert two.tolist() == [[4, 5, 6, 7], [14, 15, 16, 17]]
    assert counted.tolist() == [[True, True, False, False]] * 2
    assert three[:, :2].tolist() == [[8, 9], [18, 19]]
