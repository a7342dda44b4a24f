"""How two processes on this CPU exchange gradients: latency and bandwidth of gloo's all-reduce, as workers call it.

Each has one thread and a CPU of its own. What they send goes through the kernel's loopback, copied in and out by the CPUs
that compute.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from txlplan.engine.world import World
from txlplan.errors import TxlplanError
from txlplan.hardware import Link

_PROCESSES = 2
_PAYLOAD_BYTES = 16 << 20
"""Of the large all-reduce: most of one of torch's buckets of gradients (25 MiB)."""
_REPEATS, _WARM_UP = 20, 3
_LEAST_SHARE = 0.5
"""Of the large all-reduce, that its payload takes: a machine that lingers over a number is not quick with the rest."""


def shared_memory_link(budget_s: float) -> Link:
    """Measured by two processes, which take at most `budget_s`, most of it to load torch.

    Raises TxlplanError where they fail, or take longer.
    """
    with tempfile.TemporaryDirectory(prefix="txlplan-probe-") as directory:
        command = [sys.executable, "-m", "txlplan.detection._link", directory]
        processes = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in range(_PROCESSES)
        ]
        end = time.perf_counter() + budget_s
        try:
            told = [process.communicate(timeout=max(end - time.perf_counter(), 0.0)) for process in processes]
        except subprocess.TimeoutExpired:
            raise TxlplanError(f"two processes took longer than {budget_s:.0f} s") from None
        finally:
            for process in processes:
                process.kill()
                process.wait()
    for process, (_, error) in zip(processes, told, strict=True):
        if process.returncode:
            raise TxlplanError(f"one of two processes ended with {process.returncode}: {error.strip()[-200:]}")
    return link_of(*json.loads(told[0][0]))


def link_of(small_s: float, large_s: float) -> Link:
    """What gives these times of all-reduces by two, of a number and of the payload: 2 · latency, and the payload at the bus
    bandwidth."""
    bandwidth = float(f"{_PAYLOAD_BYTES / max(large_s - small_s, _LEAST_SHARE * large_s):.4g}")
    return Link(
        kind="shared-memory",
        bandwidth_bytes_per_s=bandwidth,
        latency_s=float(f"{small_s / 2:.4g}"),
        all_reduce_bus_bandwidth_bytes_per_s=bandwidth,
    )


def _main(directory: str, rank: int) -> None:
    """Of one process: the first prints the median times."""
    import torch
    import torch.distributed as dist

    world = World(rank=rank, size=_PROCESSES, local_rank=rank, local_size=_PROCESSES)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, world.own_cpus(os.sched_getaffinity(0), 1))
    torch.set_num_threads(1)
    rendezvous = (Path(directory) / "rendezvous").absolute().as_uri()
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=_PROCESSES)

    def timed_s(gradients: torch.Tensor) -> float:
        dist.barrier()
        start_s = time.perf_counter()
        dist.all_reduce(gradients)
        return time.perf_counter() - start_s

    sent = torch.zeros(1), torch.zeros(_PAYLOAD_BYTES // 4)
    rounds = [[timed_s(gradients) for gradients in sent] for _ in range(_WARM_UP + _REPEATS)]
    medians = [statistics.median(times_s) for times_s in zip(*rounds[_WARM_UP:], strict=True)]
    dist.barrier()
    if world.is_first:
        sys.stdout.write(json.dumps(medians))
        sys.stdout.flush()
    os._exit(0)  # at once, as workers end: gloo's threads outlive their group


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
