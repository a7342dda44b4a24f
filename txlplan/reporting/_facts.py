"""What one record says, under headings, as text: the same on a terminal and in a report."""

from __future__ import annotations

from txlplan.records import Record
from txlplan.reporting._format import duration_s, moment, number, percent, plan_text, yes_no
from txlplan.units import (
    format_bytes,
    format_bytes_per_s,
    format_count,
    format_flops_per_s,
    format_hz,
    format_j,
    format_rate,
    format_s,
    format_w,
)

Facts = dict[str, str]


def facts(record: Record) -> dict[str, Facts]:
    """Heading → name → text."""
    return {
        "Record": _record(record),
        "Result": _result(record),
        "Predicted before the run": _predicted(record),
        "Model and plan": model_facts(record),
        "Hardware": hardware_facts(record),
        "Environment": environment_facts(record),
    }


def hardware_facts(record: Record) -> Facts:
    """The device as detected, and how many of it."""
    device = record.device
    peaks = (f"{dtype} {format_flops_per_s(peak)}" for dtype, peak in device.peak_flops_per_s.items())
    return {
        "device": device.name,
        "profile": f"{device.id} ({device.provenance})",
        "devices": str(record.n_devices),
        "cores": str(device.cores),
        "clock": format_hz(device.clock_hz),
        "memory": f"{format_bytes(device.memory_bytes)}, usable {format_bytes(device.memory_usable_bytes)}",
        "memory bandwidth": format_bytes_per_s(device.memory_bandwidth_bytes_per_s),
        "peak arithmetic": ", ".join(peaks) or "unknown",
        "rated power": format_w(device.power_w),
        "system": record.system,
        "stack": record.stack,
    }


def model_facts(record: Record) -> Facts:
    """The model's shape, the plan, and how parameters are updated."""
    workload, model = record.workload, record.workload.model
    optimization = workload.optimization
    heads = f"{model.n_head} heads of {model.d_head}"
    found = {
        "model": model.name or model.id,
        "shape": f"{model.n_layer} layers, width {model.d_model}, {heads}, inner {model.d_inner}",
        "vocabulary": format_count(model.vocab_size),
        "segment and memory": f"{model.tgt_len} and {model.mem_len} tokens",
        "task": workload.task,
        "plan": plan_text(record.plan),
        "batch over all devices": f"{record.plan.global_batch} sequences",
    }
    if workload.task == "train":
        rate = f"learning rate {optimization.learning_rate:g}, {optimization.schedule} after {optimization.warmup_steps} steps"
        found["optimizer"] = f"{optimization.optimizer}, {rate}"
    return found


def environment_facts(record: Record) -> Facts:
    """Software and code state."""
    environment = record.environment
    dirty = {None: "", True: ", with changes not committed", False: ""}[environment.git_dirty]
    return {
        "python": environment.python,
        "torch": environment.torch or "unknown",
        "operating system": environment.operating_system,
        "driver": environment.driver or "none",
        "host": environment.hostname,
        "code": f"{environment.git_commit[:12]}{dirty}" if environment.git_commit else "unknown",
        "run directory": record.run_directory or "unknown",
    }


def _record(record: Record) -> Facts:
    return {
        "id": record.id,
        "kind": record.kind if record.parent is None else f"{record.kind} of {record.parent}",
        "began": moment(record.created_at),
        "took": format_s(duration_s(record.created_at, record.finished_at)),
        "outcome": f"{record.outcome}: {record.message}" if record.message else record.outcome,
    }


def _result(record: Record) -> Facts:
    return {
        "steps": f"{len(record.step_s)}, of which {min(record.warmup_steps, len(record.step_s))} warm-up",
        "throughput": format_rate(record.tokens_per_s, "tokens"),
        "peak memory": format_bytes(record.peak_memory_bytes),
        "peak of the allocator": format_bytes(record.allocator_peak_bytes),
        "energy": format_j(record.energy_j),
        "perplexity": number(record.perplexity, 2),
        "bits per character": number(record.bits_per_character),
    }


def _predicted(record: Record) -> Facts:
    estimate = record.estimate
    if estimate is None:
        return {"estimate": "none was made"}
    return {
        "throughput": format_rate(estimate.tokens_per_s.value, "tokens"),
        "step time": format_s(estimate.step_s.value),
        "peak memory": f"{format_bytes(estimate.peak_memory_bytes.value)} of {format_bytes(estimate.capacity_bytes)}",
        "fits": yes_no(estimate.fits),
        "MFU": percent(estimate.mfu),
        "stack": f"{estimate.stack} (extrapolated)" if estimate.extrapolated else estimate.stack,
        "notes": "; ".join(estimate.notes) or "none",
    }
