"""A scenario: what is to be compared, by name. One TOML file, or the options of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from txlplan.choices import Task
from txlplan.config import parse_toml, read_toml
from txlplan.config._schema import STRICT
from txlplan.errors import InputError
from txlplan.planner import Pay, RankBy
from txlplan.units import COUNT, DURATION, USD, WATTS


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """A part that does not exist: like a real one, except for some keys of its profile."""

    __pydantic_config__ = STRICT

    like: str
    """Id of a device."""
    set: Mapping[str, Any]
    """TOML keys and values, `{"memory_bandwidth" = "3 TB/s", "peak.bf16" = "400 TFLOP/s"}`."""


@dataclass(frozen=True, slots=True)
class _Stated:
    """Reads the prices that are stated of a system, text or a list of text: a number alone says neither unit nor kind."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Refuse what is no price before its type is told apart."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._checked, handler(source))

    @staticmethod
    def _checked(stated: Any) -> Any:
        texts = stated if isinstance(stated, list | tuple) else [stated]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f'{stated!r} is no price; write it like "18.50 USD/h" to rent, "spot 7.10 USD/h" for spot, "149000 USD" to '
                "buy, or as a list of them"
            )
        return stated


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Everything a comparison depends on, beside the profiles."""

    __pydantic_config__ = STRICT

    model: str
    """Id of a model profile, or a .toml file."""
    task: Task = "train"
    tokens: Annotated[int, COUNT]
    """To train on, score or generate."""
    on: tuple[str, ...]
    """`dgx-1`, `4xdgx-1`, `1..64xdgx-1` (powers of two in that range, and its end), `local`."""
    global_batch: int | None = None
    """Sequences per step; None: the model's published one."""
    rank_by: RankBy = "time"
    pay: Pay = "auto"
    deadline_s: Annotated[float, DURATION] | None = None
    budget_usd: Annotated[float, USD] | None = None
    max_power_w: Annotated[float, WATTS] | None = None
    """Most that the rated power of the devices in use may be."""
    memory_headroom: float | None = None
    """Share of a device's usable memory that a plan must leave free; None: a twentieth."""
    without: tuple[str, ...] = ()
    """What plans are not to use: tensor-parallel, zero, offload, …"""
    runnable: bool = False
    """Only plans that this version executes."""
    stack: str | None = None
    """Id of a stack profile for all; None: each system's own."""
    prices: Mapping[str, Annotated[str | tuple[str, ...], _Stated()]] = field(default_factory=dict)
    """By system: `18.50 USD/h`, `spot 7 USD/h` or, to buy, `150000 USD`; or several, one of each kind."""
    economics: str = "default"
    """Id of a profile of assumptions."""
    assume: Mapping[str, Any] = field(default_factory=dict)
    """Keys of that profile, otherwise."""
    what_if: tuple[WhatIf, ...] = ()
    """Each is put in the place of its like in every candidate, beside it."""

    def __post_init__(self) -> None:
        if not any(name.strip() for name in self.on):
            raise InputError('nothing to compare: name systems, like on = ["dgx-1", "1..4xdgx-a100-40gb"]')

    def prices_of(self, system: str) -> tuple[str, ...]:
        """Every price that is stated under a name."""
        stated = self.prices.get(system, ())
        return (stated,) if isinstance(stated, str) else stated


def read_scenario(path: Path, changes: Mapping[str, Any] | None = None) -> Scenario:
    """Read scenario.toml, `changes` (TOML keys) over it. Raises ConfigError that names the file and the key.

    Tables are merged: a price that is stated of one system leaves the file's of the others.
    """
    raw = {**read_toml(path)}
    for key, value in (changes or {}).items():
        both_tables = isinstance(value, Mapping) and isinstance(raw.get(key), Mapping)
        raw[key] = {**raw[key], **value} if both_tables else value
    return parse_toml(Scenario, raw, str(path))


def scenario_of(fields: Mapping[str, Any]) -> Scenario:
    """A scenario from options, as TOML would write them. Raises ConfigError."""
    return parse_toml(Scenario, fields, "comparison")
