"""The sizes of an offer, costed together: a plan takes as long on a cluster as on a larger one of the same nodes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from txlplan.cost import Estimates, estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster, StackProfile
from txlplan.planner._choose import Choice, choice_of, plan
from txlplan.planner._meshes import within_node
from txlplan.planner._money import idle_devices
from txlplan.planner._offer import Offer
from txlplan.planner._resolve import Candidate
from txlplan.planner._search import search
from txlplan.planner._space import Space, global_batch
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of one size before its best plan is asked for."""

    space: Space
    plain: Estimates | None = None
    """Of its plans without checkpointing."""
    refusal: InputError | None = None
    """Why there is none."""
    whole_first: bool = False
    """Plans that leave a device of a node idle are taken only where no other is left."""

    def best(self, workload: Workload, candidate: Candidate) -> Choice:
        """The best plan, or a simpler one as in `plan`. Raises NoPlanFitsError, InputError."""
        if self.refusal is not None:
            raise self.refusal
        cluster, stack = candidate.cluster, candidate.stack
        if self.whole_first:
            return whole_node_plan(workload, cluster, stack, self.space, runners_up=0, known=self.plain)
        return plan(workload, cluster, stack, space=self.space, runners_up=0, known=self.plain)

    def within(self, workload: Workload, candidate: Candidate) -> Choice | None:
        """The best plan by its figures within the limits of the workload; None where there is none."""
        cluster, stack = candidate.cluster, candidate.stack
        whole = _whole_nodes(self.plain, cluster) if self.whole_first and self.plain is not None else None
        for known in (whole, self.plain) if whole is not None else (self.plain,):
            found = search(workload, cluster, stack, self.space, keep=1, known=known)
            if len(found.plans):
                return choice_of(workload, cluster, stack, found)
        return None


def whole_node_plan(
    workload: Workload,
    cluster: Cluster,
    stack: StackProfile,
    space: Space,
    *,
    runners_up: int = 5,
    explain: bool = False,
    known: Estimates | None = None,
) -> Choice:
    """As `plan`, of the plans that leave no device of a node idle; where none of these is left, of all.

    Plans without checkpointing are costed once for both (or `known`). Raises NoPlanFitsError, InputError.
    """
    plain = known or estimate(workload, cluster, stack, space.plain(workload, cluster, stack))
    whole = _whole_nodes(plain, cluster)
    if whole is not None:
        with suppress(NoPlanFitsError):
            return plan(workload, cluster, stack, space=space, runners_up=runners_up, explain=explain, known=whole)
    return plan(workload, cluster, stack, space=space, runners_up=runners_up, explain=explain, known=plain)


def _whole_nodes(plain: Estimates, cluster: Cluster) -> Estimates | None:
    """Those that leave no device of a node idle; None without any."""
    mine = np.flatnonzero(idle_devices(cluster, plain.plans.n_devices) == 0)
    return plain.take(mine) if mine.size else None


def known_by_size(workload: Workload, offer: Offer, space: Space, *, whole_first: bool = False) -> list[Known]:
    """For each size of an offer. Of a range of sizes, each is seen as the size that it is: plans use every node of it.

    Sizes that differ in their number of nodes alone are costed in one call. `whole_first` as in Known.
    """
    found = _by_size(workload, offer, space)
    return [replace(known, whole_first=whole_first) for known in found]


def _by_size(workload: Workload, offer: Offer, space: Space) -> list[Known]:
    largest = max(offer.sizes, key=lambda size: size.cluster.n_nodes)
    spaces = [space_of(space, size.cluster, ranged=len(offer.sizes) > 1) for size in offer.sizes]
    if len(offer.sizes) == 1 or largest.cluster.device.kind == "cpu" or not _alike(offer.sizes, largest):
        return [_alone(workload, size, own) for size, own in zip(offer.sizes, spaces, strict=True)]
    devices = {number for own in spaces for number in own.devices or ()}
    together = _alone(workload, largest, replace(space, devices=tuple(sorted(devices))))
    if together.plain is None:
        return [_alone(workload, size, own) for size, own in zip(offer.sizes, spaces, strict=True)]
    return [_one(together.plain, own, workload) for own in spaces]


def _alone(workload: Workload, size: Candidate, space: Space) -> Known:
    unlimited = replace(workload, deadline_s=None, budget_usd=None)
    try:
        plans = space.plain(unlimited, size.cluster, size.stack)
        return Known(space=space, plain=estimate(unlimited, size.cluster, size.stack, plans))
    except InputError as error:
        return Known(space=space, refusal=error)


def _one(together: Estimates, space: Space, workload: Workload) -> Known:
    mine = np.flatnonzero(np.isin(together.plans.n_devices, np.array(space.devices or ())))
    if mine.size:
        return Known(space=space, plain=together.take(mine))
    return Known(
        space=space,
        refusal=InputError(
            f"no plan divides a global batch of {global_batch(workload)} as asked",
            hint="the global batch is micro-batch × accumulation × data-parallel devices: change one of them",
        ),
    )


def space_of(space: Space, cluster: Cluster, *, ranged: bool) -> Space:
    """Of one size; one of a range is seen as the size that it is."""
    if cluster.device.kind == "cpu" or not ranged:
        return space
    if cluster.n_nodes > 1:
        return replace(space, devices=(cluster.n_devices,))
    return replace(space, devices=tuple(within_node(cluster)))


def _alike(sizes: Iterable[Candidate], largest: Candidate) -> bool:
    return all(
        replace(size.cluster, n_nodes=1) == replace(largest.cluster, n_nodes=1) and size.stack == largest.stack
        for size in sizes
    )
