"""Quantities parse to SI, print back, and refuse what is no such quantity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan import units
from txlplan.units import BYTES, BYTES_PER_S, COUNT, FLOPS_PER_S, HERTZ, SECONDS, USD_PER_H, WATTS, Quantity

QUANTITIES = [BYTES, BYTES_PER_S, FLOPS_PER_S, SECONDS, WATTS, HERTZ, USD_PER_H]


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (BYTES, "16 GiB", 17_179_869_184),
        (BYTES, "16GB", 16_000_000_000),
        (BYTES_PER_S, "900 GB/s", 9e11),
        (BYTES_PER_S, "100 Gb/s", 1.25e10),
        (FLOPS_PER_S, "125 TFLOP/s", 1.25e14),
        (SECONDS, "2.6 us", 2.6e-6),
        (SECONDS, "2 h", 7200.0),
        (HERTZ, "1530 MHz", 1.53e9),
        (USD_PER_H, "$24.48/h", 24.48),
        (COUNT, "1.8e9", 1_800_000_000),
        (COUNT, "103M", 103_000_000),
        (COUNT, 12, 12),
    ],
)
def test_text_becomes_si(quantity: Quantity, text: str | int, value: float) -> None:
    assert quantity.parse(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("quantity", "text", "says"),
    [
        (BYTES, "16 GW", "not a unit"),
        (BYTES, "-1 GiB", "more than zero"),
        (BYTES, "0 B", "more than zero"),
        (BYTES, 16, "no unit"),
        (BYTES, "lots", "is not a memory size"),
        (BYTES_PER_S, "900 GB", "not a unit"),
        (SECONDS, "-1 s", "zero or more"),
        (FLOPS_PER_S, "1e999 FLOP/s", "more than zero"),
        (COUNT, True, "no unit"),
        (COUNT, "1e30", "exactly up to"),
    ],
)
def test_nonsense_is_refused(quantity: Quantity, text: str | int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quantity.parse(text)


@given(st.sampled_from(QUANTITIES), st.floats(1e-3, 1e18))
def test_exact_text_parses_back(quantity: Quantity, value: float) -> None:
    if quantity.integer:
        value = min(max(value, 1.0), 2.0**53)
    stored = quantity.parse(f"{value!r} {quantity.base}")
    assert quantity.parse(quantity.exact(stored)) == stored


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.format_bytes(17_179_869_184), "16.0 GiB"),
        (units.format_bytes(0), "0 B"),
        (units.format_bytes(None), "unknown"),
        (units.format_bytes_per_s(9e11), "900 GB/s"),
        (units.format_flops_per_s(1.25e14), "125 TFLOP/s"),
        (units.format_s(0.0015), "1.50 ms"),
        (units.format_s(119), "119 s"),
        (units.format_s(150), "2.50 min"),
        (units.format_s(7200), "2.00 h"),
        (units.format_s(259_200), "3.00 d"),
        (units.format_w(300), "300 W"),
        (units.format_j(7.2e6), "2.00 kWh"),
        (units.format_hz(1.53e9), "1.53 GHz"),
        (units.format_usd(1234.5), "$1,234.50"),
        (units.format_usd(149_000), "$149,000"),
        (units.format_usd(None), "unknown"),
        (units.format_count(267_735), "267,735"),
        (units.format_rate(26_639.2, "tokens"), "26,639 tokens/s"),
        (units.format_rate(6.71, "tokens"), "6.71 tokens/s"),
        (units.format_rate(None, "tokens"), "unknown"),
    ],
)
def test_printing(text: str, expected: str) -> None:
    assert text == expected
