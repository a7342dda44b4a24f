"""Score the cost model on published runs: each estimated under its stack, or the nearest one that has a profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from txlplan.cost import estimate
from txlplan.errors import TxlplanError
from txlplan.estimates import Estimate
from txlplan.hardware import StackProfile, nearest_stack
from txlplan.validation._published import Published, Unreadable
from txlplan.validation._rows import Row, Unscored, scored


def predict(runs: Iterable[Published | Unreadable], stacks: Mapping[str, StackProfile] | None = None) -> list[Row | Unscored]:
    """One scored row a run, in order. `stacks` by id take the place of the shipped ones (a refit without some rows)."""
    known: dict[str, StackProfile] = {}
    return [_predicted(run, known, stacks or {}) for run in runs]


def _predicted(
    run: Published | Unreadable, known: dict[str, StackProfile], refitted: Mapping[str, StackProfile]
) -> Row | Unscored:
    if isinstance(run, Unreadable):
        return Unscored(id=run.id, reason=run.reason)
    try:
        if run.stack_name not in known:
            profile = nearest_stack(run.stack_name)
            known[run.stack_name] = replace(refitted.get(profile.id, profile), stands_in_for=profile.stands_in_for)
        stack = known[run.stack_name]
        found = estimate(run.workload, run.cluster, run.stack(stack), [run.plan])[0]
    except TxlplanError as error:
        return Unscored(id=run.id, reason=error.message)
    return _row(run, stack, found)


def _row(run: Published, stack: StackProfile, found: Estimate) -> Row:
    return Row(
        id=run.id,
        kind="published",
        outcome="ok" if run.fits else "oom",
        task=run.workload.task,
        model=run.workload.model.id,
        device=run.cluster.device.id,
        n_devices=run.cluster.n_devices,
        precision=run.plan.precision,
        stack=stack.id,
        extrapolated=found.extrapolated,
        tokens_per_s=scored(found.tokens_per_s, run.tokens_per_s),
        peak_memory_bytes=scored(found.peak_memory_bytes, run.peak_memory_bytes),
        fits_predicted=found.fits,
        fits_measured=run.fits,
    )
