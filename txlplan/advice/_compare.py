"""`txlplan.compare`: from a scenario, a file or plain arguments to the answer."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from txlplan import planner
from txlplan.advice._advice import Advice
from txlplan.advice._offers import offers_of
from txlplan.advice._scenario import Scenario, read_scenario, scenario_of
from txlplan.advice._side_by_side import side_by_side
from txlplan.advice._workload import workload_of
from txlplan.errors import InputError
from txlplan.hardware import Economics, booked_without_system, economics
from txlplan.planner import Terms

_MANY_SIZES = 16
"""Clusters beyond which a comparison takes seconds, and processes for it are worth their start."""


def compare(scenario: Scenario | str | Path | None = None, *, today: datetime.date | None = None, **options: Any) -> Advice:
    """Compare candidates for a workload: time, cost and energy with ranges, and which one to take.

    `scenario` is a file, or a Scenario; `options` are its fields by their TOML keys, over the file's:
    `compare(model="nvidia-wt103-base", tokens=1.8e9, on=["dgx-1", "1..8xp4d.24xlarge"], rank_by="cost")`.
    `today` is the day against which the age of prices is counted.
    Raises InputError (ConfigError) for wrong input, NoPlanFitsError when no candidate is left.
    """
    if isinstance(scenario, Scenario):
        if options:
            raise InputError("give a Scenario or its fields, not both", hint="dataclasses.replace changes a Scenario")
        found = scenario
    else:
        changes = {key: _plain(value) for key, value in options.items() if value is not None}
        found = scenario_of(changes) if scenario is None else read_scenario(Path(scenario), changes)
    day = today or datetime.date.today()
    terms = Terms(rank_by=found.rank_by, pay=found.pay, economics=_economics(found), today=day)
    space = planner.without(planner.Space(runnable=found.runnable), found.without)
    offers = offers_of(found, day)
    many = sum(len(offer.sizes) for offer in offers) > _MANY_SIZES
    mapped = side_by_side if many else map
    workload = workload_of(
        found.model,
        found.task,
        tokens=found.tokens,
        global_batch=found.global_batch,
        deadline_s=found.deadline_s,
        budget_usd=found.budget_usd,
        power_cap_w=found.max_power_w,
        memory_headroom=found.memory_headroom,
    )
    comparison = planner.compare(workload, offers, terms=terms, space=space, mapped=mapped)
    unused = (*_unused(found), *booked_without_system(offer.sizes[0].cluster.system.id for offer in offers))
    return Advice(scenario=found, comparison=replace(comparison, warnings=(*unused, *comparison.warnings)))


def _unused(scenario: Scenario) -> tuple[str, ...]:
    """Of the prices that are stated, those of spot nodes are counted only where that way to pay is asked for."""
    stated = [name for name in scenario.prices if any(text.strip().startswith("spot ") for text in scenario.prices_of(name))]
    return tuple(
        f"the spot price that is stated for {name} is used with --pay spot only" for name in stated if scenario.pay != "spot"
    )


def _plain(value: Any) -> Any:
    """As TOML has it: lists, and 1.8e9 as the count that it is."""
    if isinstance(value, str | Mapping):
        return value
    return list(value) if isinstance(value, Sequence) else value


def _economics(scenario: Scenario) -> Economics:
    return economics.variant(scenario.economics, _sourced(scenario.assume), id=scenario.economics)


def _sourced(assume: Mapping[str, Any]) -> dict[str, Any]:
    """The changes, each with its source: this scenario."""
    return {**assume, **{f"sources.{key}": "stated for this comparison" for key in assume}}
