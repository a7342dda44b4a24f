"""Memory of a worker process before it holds a model: measured in a process of its own.

It imports what a worker imports, starts the thread pool and lets the libraries build their kernels, so that what they keep
is counted, and reports the most memory it ever held.
"""

from __future__ import annotations

import subprocess
import sys

_TIMEOUT_S = 30
_PROGRAM = """
import sys
import torch
import txlplan.engine.worker
from txlplan.detection._context import exercise
exercise(int(sys.argv[1]), sys.argv[2].split(","))
from txlplan.engine.footprint import peak_bytes
print(peak_bytes(torch.device("cpu")))
"""


def exercise(threads: int, dtypes: list[str]) -> None:
    """Use every kind of kernel once, on tensors of a few hundred KiB: forward, backward and optimizer step of a small model."""
    import torch

    from txlplan.model import ModelConfig
    from txlplan.nn import TransformerXL

    torch.set_num_threads(threads)
    config = ModelConfig(
        id="probe-context", n_layer=1, d_model=64, n_head=2, d_head=32, d_inner=128, vocab_size=64, tgt_len=16, mem_len=16
    )
    model = TransformerXL(config)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens, valid = torch.zeros(4, 16, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    for dtype in dtypes:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            hidden, _ = model(tokens, model.initial_memory(4), valid)
            loss = model.nll(hidden, tokens).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def context_bytes(threads: int, dtypes: list[str]) -> tuple[int | None, str | None]:
    """The memory in bytes, or None and why it could not be measured."""
    command = [sys.executable, "-c", _PROGRAM, str(threads), ",".join(dtypes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"the memory of a worker process was not measured: {error}"
    lines = done.stdout.split()
    if done.returncode != 0 or not lines or not lines[-1].isdigit():
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return None, f"the memory of a worker process was not measured: {reason}"
    return int(lines[-1]), None
