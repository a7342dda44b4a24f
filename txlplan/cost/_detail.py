"""Of one plan: whether its figures were measured where they are used, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterator

from txlplan.cost._efficiency import ALIGNED
from txlplan.cost._evaluated import Evaluated
from txlplan.hardware import Cluster, DeviceProfile, StackProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.workload import Workload

_MEASURED_SHARE = 0.8
"""Share of the device's time that must lie within measured shapes for an estimate not to be extrapolated."""


def extrapolated_figures(found: Evaluated, cluster: Cluster, stack: StackProfile, plan: Plan) -> bool:
    """Whether the figures come from another device, from beyond the shapes they were measured on, or from no run at all."""
    if stack.stands_in_for is not None or unmeasured_settings(plan):
        return True
    if stack.kernels is not None:
        return cluster.device.id not in stack.fitted_devices
    if stack.measured_device != cluster.device.id:
        return True
    return found.measured_share() < _MEASURED_SHARE


def unmeasured_settings(plan: Plan) -> list[str]:
    """Settings of a plan that no stack was fitted or measured with."""
    names = ("tensor_parallel", "pipeline_parallel", "context_parallel")
    wanted = [name for name in names if getattr(plan, name) > 1]
    wanted += ["zero_stage"] if plan.zero_stage else []
    wanted += ["offload"] if plan.offload != "none" else []
    wanted += ["optimizer_precision"] if plan.optimizer_precision != "fp32" else []
    return wanted


def shares_a_cpu(cluster: Cluster, plan: Plan) -> bool:
    """Whether several processes of a plan compute on one CPU."""
    return cluster.device.kind == "cpu" and plan.n_devices > cluster.n_devices


def _of_reading(device: DeviceProfile, stack: StackProfile, plan: Plan) -> list[str]:
    """Where compiled tokens run on a CPU that was measured without them."""
    measured_before = stack.measured_device == device.id and not stack.token_reading
    if not (measured_before and plan.compile and device.kind == "cpu"):
        return []
    return ["how fast compiled tokens read what a cache holds was not measured: `txlplan hardware probe` does so"]


def _of_widths(model: ModelConfig, device: DeviceProfile, stack: StackProfile, plan: Plan) -> list[str]:
    """Where a GPU's tensor cores load the rows of our products number by number."""
    if device.kind != "gpu" or stack.kernels is not None or plan.precision == "fp32":
        return []
    vector = ALIGNED[plan.precision]
    odd = [f"{name} {size}" for name, size in (("d_model", model.d_model), ("d_inner", model.d_inner)) if size % vector]
    return [f"products take several times as long where widths are no multiple of {vector}: {', '.join(odd)}"] if odd else []


def _of_precision(workload: Workload, device: DeviceProfile, plan: Plan) -> list[str]:
    """Where products compute in another precision than was asked for."""
    computed = plan.computes_in(workload.task, bf16_units=device.multiplies_bf16)
    if computed == plan.precision:
        return []
    return [
        f"{device.name} is no faster in {plan.precision}, for which it widens weights at each use: it computes in {computed}"
    ]


def notes(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan, *, extrapolated: bool) -> tuple[str, ...]:
    """In sentences."""
    said = []
    device, wanted = cluster.device, unmeasured_settings(plan)
    if stack.stands_in_for is not None:
        said.append(f"stack {stack.stands_in_for} has no profile: {stack.id} stands in for it")
    if stack.kernels is not None:
        if device.id not in stack.fitted_devices:
            said.append(f"stack {stack.id} was fitted on {', '.join(stack.fitted_devices)}, not on {device.id}")
        if device.peak(plan.precision) is None:
            said.append(f"{device.name} has no {plan.precision} units: it stores that and computes in fp32")
    elif stack.measured_device is None:
        said.append(f"stack {stack.id} has not been measured on any device: efficiencies are assumed")
    elif stack.measured_device != device.id:
        said.append(f"stack {stack.id} was measured on {stack.measured_device}, not on {device.id}")
    elif extrapolated and not wanted:
        said.append("a fifth or more of the time is spent in shapes beyond the measured ones")
    said += _of_reading(cluster.device, stack, plan)
    said += _of_precision(workload, cluster.device, plan)
    said += _of_widths(workload.model, cluster.device, stack, plan)
    if wanted:
        said.append(f"no run with {', '.join(wanted)} has been measured: those terms are derived, and the range is wider")
    return (*said, *_of_ranges(cluster, stack, plan))


def _of_ranges(cluster: Cluster, stack: StackProfile, plan: Plan) -> Iterator[str]:
    if stack.doubts:
        yield f"the probe of {stack.id} said: {stack.doubts}"
    if shares_a_cpu(cluster, plan):
        yield "processes that share a CPU wait for each other: what else runs on it slows them all, and the range is wider"
    if stack.spread is None:
        yield f"stack {stack.id} states no spread: the range is a default"
