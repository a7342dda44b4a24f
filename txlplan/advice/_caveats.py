"""What the figures of a proposal leave out, in sentences."""

from __future__ import annotations

from txlplan.hardware import Cluster
from txlplan.planner import Choice, RunnerUp, describe, standing
from txlplan.units import format_bytes
from txlplan.workload import Workload


def caveats(workload: Workload, cluster: Cluster, choice: Choice, surer: RunnerUp | None) -> tuple[str, ...]:
    """Of memory that fits by its best figure only, of time that is of steps alone, of energy without idle devices."""
    return (*_of_memory(choice, surer), *_of_time(workload, choice), *_of_energy(workload, cluster, choice))


def _of_memory(choice: Choice, surer: RunnerUp | None) -> tuple[str, ...]:
    """Also which plan fits at the high end of its range too."""
    if not choice.estimate.tight:
        return ()
    high = format_bytes(choice.estimate.peak_memory_bytes.high)
    other = f"{describe(surer.plan)} ({standing(surer.behind)})" if surer else "none of the plans considered"
    return (f"Memory fits by its best figure; the high end of its range, {high}, does not. At the high end fits: {other}.",)


def _of_time(workload: Workload, choice: Choice) -> tuple[str, ...]:
    """Nothing where it is not said how many tokens there are."""
    if choice.totals.time_s is None:
        return ()
    beside = "start, evaluation, checkpoints and failures" if workload.task == "train" else "start and failures"
    return (f"Time, rent and energy are those of the steps alone: `txlplan compare` counts {beside} too.",)


def _of_energy(workload: Workload, cluster: Cluster, choice: Choice) -> tuple[str, ...]:
    """Where it decides, also what was not considered."""
    if choice.totals.energy_j is not None and (idle := choice.totals.n_uncounted):
        return (f"What {idle} idle devices of the occupied nodes draw is unknown, and not in the energy.",)
    if workload.objective != "least-energy" or cluster.per_node == 1 or cluster.device.power_idle_w is not None:
        return ()
    return ("Plans that leave devices of a node idle were not considered: what those draw is unknown (power_idle).",)
