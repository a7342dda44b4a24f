"""How long a workload takes from the command to the result: the steps, and all that happens beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from txlplan.cost import estimate
from txlplan.cost._update import state_bytes
from txlplan.estimates import Range
from txlplan.hardware import Economics
from txlplan.model import parameter_count
from txlplan.plan_file import Plan
from txlplan.planner._choose import Choice
from txlplan.planner._resolve import Candidate
from txlplan.units import DTYPE_BYTES
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Duration:
    """Parts of the time, in seconds, at the predicted speed; `total_s` carries the range of the speed."""

    start_s: float
    steps_s: float
    evaluation_s: float
    checkpoints_s: float
    failures_s: float
    """Expected loss to failures (and, on spot nodes, interruptions): work done again, and restarts."""
    total_s: Range

    @property
    def lost_share(self) -> float:
        """Of the time, what failures are expected to take."""
        return self.failures_s / self.total_s.value


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What does not depend on how fast the machine turns out to be."""

    checkpoint_s: float
    failure_s: float
    economics: Economics

    def duration(self, steps_s: float, evaluation_s: float) -> dict[str, float]:
        """Parts of the time.

        With `C` the time of a checkpoint, `R` of a restart, `M` the mean time between failures and Young's interval
        `τ = √(2 C M)` between checkpoints, useful time `T` takes `T C/τ` of checkpoints and, failures and restarts that fail in
        turn counted, `M exp(R/M) (exp((τ + C)/M) − 1) T/τ` in all (J. W. Young, "A first order approximation to the optimum
        checkpoint interval", 1974; J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
        2006, equation 20). At least one checkpoint is written, the last.
        """
        useful_s, mean_s = steps_s + evaluation_s, self.failure_s
        young_s = math.sqrt(2 * self.checkpoint_s * mean_s) if self.checkpoint_s else useful_s
        interval_s = min(young_s, useful_s)
        intervals = useful_s / interval_s
        checkpoints_s = intervals * self.checkpoint_s
        repeated = math.exp(_bounded(self.economics.restart_s / mean_s))
        in_all_s = intervals * mean_s * repeated * math.expm1(_bounded((interval_s + self.checkpoint_s) / mean_s))
        return {
            "start_s": self.economics.start_s,
            "steps_s": steps_s,
            "evaluation_s": evaluation_s,
            "checkpoints_s": checkpoints_s,
            "failures_s": max(in_all_s - useful_s - checkpoints_s, 0.0),
        }


def _bounded(exponent: float) -> float:
    """What is beyond it never ends, and is refused long before (`_limits`); the figure stays finite."""
    return min(exponent, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A candidate with the plan chosen for it."""

    candidate: Candidate
    choice: Choice
    evaluation_tokens_per_s: float | None
    """At which an evaluation runs on the same devices, without gradients; None where nothing is trained."""

    @property
    def n_nodes(self) -> int:
        """Whole nodes that the plan occupies, as they are rented or bought."""
        cluster = self.candidate.cluster
        return min(-(-self.choice.plan.n_devices // cluster.per_node), cluster.n_nodes)

    @property
    def n_devices(self) -> int:
        """Devices that the plan occupies."""
        return min(self.choice.plan.n_devices, self.candidate.cluster.n_devices)


def planned(workload: Workload, candidate: Candidate, choice: Choice) -> Planned:
    """The candidate with its plan, and how fast that layout evaluates: as it would score, pipeline stages as replicas."""
    speed = None
    if workload.task == "train":
        plan = choice.plan
        layout = Plan(
            micro_batch=plan.micro_batch,
            precision=plan.precision,
            data_parallel=plan.data_parallel * plan.pipeline_parallel,
            tensor_parallel=plan.tensor_parallel,
            context_parallel=plan.context_parallel,
            threads=plan.threads,
        )
        scoring = replace(workload, task="score", tokens=None, global_batch=None)
        speed = float(estimate(scoring, candidate.cluster, candidate.stack, [layout]).tokens_per_s[0])
    return Planned(candidate=candidate, choice=choice, evaluation_tokens_per_s=speed)


def duration(workload: Workload, found: Planned, economics: Economics, *, spot: bool) -> Duration:
    """Time to train (or score, or generate) `workload.tokens`, evaluations, checkpoints, start and failures counted.

    Scoring and generating write no checkpoints: after a failure they begin again, so their interval is the whole run.
    """
    assert workload.tokens is not None
    speed = found.choice.estimate.tokens_per_s
    work = _Work(
        checkpoint_s=_checkpoint_bytes(workload) / economics.storage_bandwidth_bytes_per_s,
        failure_s=_mean_time_to_failure_s(found, economics, spot=spot),
        economics=economics,
    )
    evaluation_s = _evaluation_s(workload, found, economics)
    likely, short, long = (
        work.duration(workload.tokens / rate, evaluation_s * speed.value / rate)
        for rate in (speed.value, speed.high, speed.low)
    )
    total = Range(value=sum(likely.values()), low=sum(short.values()), high=sum(long.values()))
    return Duration(**likely, total_s=total)


def _checkpoint_bytes(workload: Workload) -> float:
    """fp32 parameters and optimizer states, as the worker writes them; nothing where no training is to be resumed."""
    if workload.task != "train":
        return 0.0
    return parameter_count(workload.model) * DTYPE_BYTES["fp32"] + state_bytes(workload.optimization, workload.model)


def _mean_time_to_failure_s(found: Planned, economics: Economics, *, spot: bool) -> float:
    rate = found.n_devices / economics.device_failure_s
    if spot:
        rate += found.n_nodes / economics.spot_interruption_s
    return 1 / rate


def _evaluation_s(workload: Workload, found: Planned, economics: Economics) -> float:
    """All evaluations of a training run."""
    if found.evaluation_tokens_per_s is None or not economics.evaluate_every_steps:
        return 0.0
    assert workload.tokens is not None
    steps = workload.tokens // (found.choice.plan.global_batch * workload.model.tgt_len)
    evaluations = steps // economics.evaluate_every_steps
    return evaluations * economics.evaluation_tokens / found.evaluation_tokens_per_s
