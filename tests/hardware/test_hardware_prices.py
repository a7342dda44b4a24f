"""Which of several prices is the one of a system, and which are refused or not to be relied on."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from txlplan.config import parse_toml
from txlplan.errors import ConfigError
from txlplan.hardware import BookEntry, Price, SystemProfile, age_text, is_stale, with_prices

TODAY = datetime.date(2026, 11, 24)


def rent(usd: float, date: str, **more: Any) -> Price:
    return Price(**{"kind": "on-demand", "rent_usd_per_h": usd, "date": date, "source": "test", **more})


def system(*prices: Price) -> SystemProfile:
    return SystemProfile(id="s", name="s", kind="cloud", device="d", n_devices=1, prices=prices)


def test_the_newest_known_day_wins_and_the_first_of_one_day() -> None:
    new, old, undated = rent(1.0, "2026-11-01"), rent(2.0, "2025-12-31"), rent(3.0, "unknown")
    for prices in ((new, old, undated), (undated, old, new)):
        assert system(*prices).price("on-demand") == new
    assert system(undated).price("on-demand") == undated
    assert system(rent(5.0, "2026-11-01"), new).price("on-demand").rent_usd_per_h == 5.0
    assert system(rent(5.0, "20261102"), new).price("on-demand").rent_usd_per_h == 5.0, "days are compared, not their text"
    assert system(new).price("spot") is None


@pytest.mark.parametrize("date", ["2026-11-01", "unknown", "2062-01-01"])
def test_a_stated_price_replaces_those_of_its_kind_whatever_their_dates(date: str) -> None:
    spot = rent(4.0, date, kind="spot")
    found = with_prices(system(rent(9.0, date), spot), [rent(1.0, "2026-06-01")])
    assert found.price("on-demand").rent_usd_per_h == 1.0
    assert found.prices == (rent(1.0, "2026-06-01"), spot)


@pytest.mark.parametrize(
    ("date", "text", "stale"),
    [
        ("2026-11-24", "0 days old", False),
        ("2026-08-26", "90 days old", False),
        ("2026-08-25", "91 days old", True),
        ("2017-05-10", "3,485 days old", True),
        ("2026-11-25", "dated 1 day ahead", True),
        ("unknown", "of unknown age", True),
    ],
)
def test_age(date: str, text: str, stale: bool) -> None:
    price = rent(1.0, date)
    assert age_text(price, TODAY) == text
    assert is_stale(price, TODAY) is stale


@pytest.mark.parametrize(
    ("kind", "amount", "message"),
    [
        ("purchase", {"rent": "5 USD/h"}, "kind = 'purchase' with 'rent': a price of that kind states 'purchase'"),
        ("on-demand", {"purchase": "5 USD"}, "kind = 'on-demand' with 'purchase': a price of that kind states 'rent'"),
        ("spot", {"purchase": "5 USD"}, "kind = 'spot' with 'purchase'"),
        ("spot", {}, "either 'rent' or 'purchase'"),
    ],
)
def test_kind_and_amount_belong_together(kind: str, amount: dict[str, str], message: str) -> None:
    raw = {"system": "s", "kind": kind, "date": "2026-11-01", "source": "test", **amount}
    with pytest.raises(ConfigError, match=r"book\.toml: .*" + message):
        parse_toml(BookEntry, raw, "book.toml")
