"""Operations on a GPU as a graph of kernels (CUDA graph) that the device runs by itself: no host's dispatch is timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from txlplan.detection._timing import Work

REPEATS = 8
"""Of the work in one graph: starting a graph takes the host as long as some small kernels take the device."""


def captured(build: Callable[[], Work], dtype: str) -> Callable[[], Work]:
    """Builds work that does what `build`'s does, REPEATS times."""

    def build_captured() -> Work:
        with exactly(dtype):
            work = build()
            _warm_up(work)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                _often(work)

        def replay(_alive: Work = work) -> None:
            graph.replay()

        return replay

    return build_captured


def _often(work: Work) -> None:
    for _ in range(REPEATS):
        work()


def _warm_up(work: Work) -> None:
    """Libraries choose their kernels and take their workspaces at a first call, beside the stream that is captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


@contextlib.contextmanager
def exactly(dtype: str) -> Iterator[None]:
    """Products of fp32 tensors in tf32 where that is the dtype, in fp32 otherwise."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
