"""Parse and print quantities with units. SI base units inside, prefixes only at the rim.

GiB is 2**30 bytes, GB is 10**9 bytes; `b` is a bit (links), `B` a byte. Nothing else in txlplan parses or prints a unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NUMBER = re.compile(r"^\s*\$?\s*([+-]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")
_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}

_EXACT = 2**53
"""Whole numbers above it are rounded in a float."""

DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1, "int64": 8, "bool": 1}
"""Bytes of one element in memory, by dtype (tf32 is stored as fp32)."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A dimension whose values may be stated with a unit; used as `Annotated[float, BYTES_PER_S]`.

    In a file a value is text with a unit (`"16 GiB"`); in memory and in JSON it is a number in `base`.
    """

    name: str
    base: str
    factors: Mapping[str, float] = field(hash=False)
    example: str
    integer: bool = False
    zero_allowed: bool = True
    bare_allowed: bool = False

    def parse(self, text: str | int | float) -> float:
        """The value of `text` in base units. Raises ValueError on a missing or wrong unit, a negative or non-finite value."""
        if not isinstance(text, str):
            if not self.bare_allowed or not isinstance(text, int | float) or isinstance(text, bool):
                raise ValueError(f"{text!r} has no unit; write {self.name} like {self.example!r}")
            return self._checked(float(text), str(text))
        match = _NUMBER.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not {self.name}; write it like {self.example!r}")
        number, unit = match[1].replace("_", "").replace(",", ""), match[2]
        if not unit and unit not in self.factors:
            raise ValueError(f"{text!r} has no unit; write {self.name} like {self.example!r}")
        if unit not in self.factors:
            known = ", ".join(u for u in self.factors if u)
            raise ValueError(
                f"{text!r}: {unit!r} is not a unit of {self.name} (known: {known}); write it like {self.example!r}"
            )
        return self._checked(float(number) * self.factors[unit], text)

    def _checked(self, value: float, text: str) -> float:
        if math.isnan(value):
            raise ValueError(f"{text!r} is not {self.name}; write it like {self.example!r}")
        if not math.isfinite(value) or value < 0 or (value == 0 and not self.zero_allowed):
            raise ValueError(f"{text!r}: {self.name} must be {'zero or more' if self.zero_allowed else 'more than zero'}")
        if self.integer and value > _EXACT:
            raise ValueError(f"{text!r}: {self.name} can be counted exactly up to {_EXACT:,}")
        return round(value) if self.integer else value

    def exact(self, value: float) -> str:
        """Text that parses back to exactly `value`, in the largest unit that allows it."""
        for unit, factor in sorted(self.factors.items(), key=lambda item: -item[1]):
            if unit.endswith(self.base) and unit and value >= factor:
                text = f"{value / factor:.6g} {unit}"
                if self.parse(text) == value:
                    return text
        return f"{int(value) if self.integer else repr(float(value))} {self.base}".strip()

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Read this quantity from text with a unit, or from a number where the validation context says SI."""
        from pydantic_core import core_schema

        def read(value: Any, info: Any) -> Any:
            if isinstance(value, int | float) and not isinstance(value, bool) and info.context and info.context.get("si"):
                return self._checked(float(value), str(value))
            return self.parse(value)

        return core_schema.with_info_before_validator_function(read, handler(source))


def _prefixed(symbol: str, prefixes: Mapping[str, float], scale: float = 1.0) -> dict[str, float]:
    return {prefix + symbol: factor * scale for prefix, factor in prefixes.items()}


_BYTE_UNITS = _prefixed("B", _DECIMAL) | _prefixed("B", _BINARY)
BYTES = Quantity("a memory size", "B", _BYTE_UNITS, "16 GiB", integer=True, zero_allowed=False)
BYTES_PER_S = Quantity(
    "a bandwidth",
    "B/s",
    {f"{unit}/s": factor for unit, factor in _BYTE_UNITS.items()} | _prefixed("b/s", _DECIMAL, 1 / 8),
    "900 GB/s",
    zero_allowed=False,
)
FLOPS_PER_S = Quantity("an arithmetic rate", "FLOP/s", _prefixed("FLOP/s", _DECIMAL), "125 TFLOP/s", zero_allowed=False)
SECONDS = Quantity(
    "a time", "s", {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}, "1.5 ms"
)
DURATION = Quantity("a time", "s", SECONDS.factors, "3 d")
"""The same, of runs: an example in milliseconds would mislead."""
WATTS = Quantity("a power", "W", {"W": 1.0, "kW": 1e3, "MW": 1e6}, "300 W", zero_allowed=False)
HERTZ = Quantity("a clock", "Hz", _prefixed("Hz", _DECIMAL), "1530 MHz", zero_allowed=False)
USD = Quantity("a price", "USD", {"USD": 1.0}, "149000 USD", zero_allowed=False)
USD_PER_H = Quantity("a price per hour", "USD/h", {"USD/h": 1.0, "/h": 1.0}, "24.48 USD/h", zero_allowed=False)
JOULES = Quantity("an energy", "J", {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9}, "10 kWh")
USD_PER_J = Quantity(
    "a price of energy", "USD/J", {"USD/J": 1.0, "USD/kWh": 1 / 3.6e6, "/kWh": 1 / 3.6e6}, "0.12 USD/kWh", zero_allowed=False
)
COUNT = Quantity(
    "a count", "", {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}, "1.8e9", integer=True, bare_allowed=True
)


def _scaled(value: float | None, steps: tuple[tuple[float, str], ...], digits: int) -> str:
    if value is None:
        return "unknown"
    for factor, unit in steps:
        if abs(value) >= factor:
            return f"{_significant(value / factor, digits)} {unit}"
    factor, unit = steps[-1]
    return f"{_significant(value / factor, digits)} {unit}"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def format_bytes(value: float | None) -> str:
    """`17179869184` → `16.0 GiB`."""
    return _scaled(value, ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")), 3)


def format_bytes_per_s(value: float | None) -> str:
    """`9e11` → `900 GB/s`."""
    return _scaled(value, ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")), 3)


def format_flops_per_s(value: float | None) -> str:
    """`1.25e14` → `125 TFLOP/s`."""
    return _scaled(value, ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"), (1.0, "FLOP/s")), 3)


def format_s(value: float | None) -> str:
    """`0.0015` → `1.50 ms`; above two minutes, minutes; above two hours, hours; above two days, days."""
    if value is not None and value >= 120:
        long_steps = {172_800.0: (86_400.0, "d"), 7_200.0: (3_600.0, "h"), 120.0: (60.0, "min")}
        return _scaled(value, (next(step for least, step in long_steps.items() if value >= least),), 3)
    return _scaled(value, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")), 3)


def format_w(value: float | None) -> str:
    """`300` → `300 W`."""
    return _scaled(value, ((1e6, "MW"), (1e3, "kW"), (1.0, "W")), 3)


def format_j(value: float | None) -> str:
    """Energy: joules below 3.6 kJ, watt-hours and kilowatt-hours above."""
    return _scaled(value, ((3.6e9, "MWh"), (3.6e6, "kWh"), (3.6e3, "Wh"), (1.0, "J")), 3)


def format_hz(value: float | None) -> str:
    """`1.53e9` → `1.53 GHz`."""
    return _scaled(value, ((1e9, "GHz"), (1e6, "MHz"), (1.0, "Hz")), 3)


def format_usd(value: float | None) -> str:
    """`1234.5` → `$1,234.50`; cents only below 10,000."""
    if value is None:
        return "unknown"
    return f"${value:z,.2f}" if abs(value) < 10_000 else f"${value:,.0f}"


def format_count(value: float | None) -> str:
    """A dimensionless count with thousands separators."""
    return "unknown" if value is None else f"{value:z,.0f}"


def counted(count: int, noun: str) -> str:
    """`1 record`, `1,200 records`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def format_rate(value: float | None, what: str) -> str:
    """`26639.2, "tokens"` → `26,639 tokens/s`."""
    return "unknown" if value is None else f"{value:,.0f} {what}/s" if value >= 100 else f"{_significant(value, 3)} {what}/s"
