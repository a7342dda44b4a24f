"""Rows of profiles/measurements/txlplan.csv from the records of a store: what our own runs took, for `txlplan validate`.

    python benchmarks/measurements.py STORE --device h200 --stack txlplan-cuda --source "txlplan bench, 2026-11-26" > rows.csv

Of each run that `txlplan bench` made and that ended well: the median step, and the peak of its process.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from txlplan.plan_file import Plan
from txlplan.records import open_store
from txlplan.workload import Workload


def main() -> None:
    """Print the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--device", required=True, help="id of its profile")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--source", required=True, help="where and how")
    options = parser.parse_args()
    rows = []
    for record in reversed(open_store(str(options.store)).list(kind="bench")):
        if record.outcome == "ok" and (steps := record.steady_steps()):
            at = {"device": options.device, "stack": options.stack, "source": options.source}
            peak = record.peak_memory_bytes
            rows.append(row(record.workload, record.plan, statistics.median(steps), peak) | at)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def row(workload: Workload, plan: Plan, step_s: float, peak_bytes: int | None) -> Mapping[str, Any]:
    """One run, but for where it was."""
    model = workload.model
    tokens = plan.global_batch * (1 if workload.task == "generate" else model.tgt_len)
    return {
        "id": f"{model.id}-{workload.task}-{plan.precision}-{plan.micro_batch}{'-graphs' if plan.compile else ''}",
        "source": "",
        "stack": "",
        "device": "",
        "system": "",
        "interconnect": "",
        "n_devices": plan.n_devices,
        "n_nodes": 1,
        "mode": workload.task,
        "model": model.id,
        "n_layer": model.n_layer,
        "d_model": model.d_model,
        "d_embed": model.embed_width,
        "n_head": model.n_head,
        "d_head": model.d_head,
        "d_inner": model.d_inner,
        "vocab_size": model.vocab_size,
        "cutoffs": ";".join(str(cutoff) for cutoff in model.cutoffs),
        "div_val": model.div_val,
        "tgt_len": model.tgt_len,
        "mem_len": model.mem_len,
        "clamp_len": model.clamp_len or -1,
        "same_length": int(model.same_length),
        "dropout": model.dropout,
        "dropatt": model.dropatt,
        "optimizer": workload.optimization.optimizer,
        "gradient_sync": "none",
        "precision": plan.precision,
        "micro_batch_size": plan.micro_batch,
        "grad_accum_steps": plan.accumulation,
        "tokens_per_s": f"{tokens / step_s:.1f}",
        "latency_ms": "",
        "peak_memory_mib": f"{peak_bytes / 2**20:.0f}" if peak_bytes else "",
        "context_memory_mib": "",
        "fits": 1,
        "norm": model.norm,
        "untie_r": int(model.untie_r),
        "compile": int(plan.compile),
    }


if __name__ == "__main__":
    main()
