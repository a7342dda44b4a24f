"""Prices beyond those in a system's own file: books that a user imported or wrote, and the age of a price."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from txlplan.config import Catalog
from txlplan.config._schema import STRICT
from txlplan.hardware._system import Price, SystemProfile

STALE_DAYS = 90
"""A price older than this is warned about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BookEntry(Price):
    """A price and the system it is of."""

    __pydantic_config__ = STRICT

    system: str

    def price(self) -> Price:
        """The same without the system's name."""
        return Price(**{each.name: getattr(self, each.name) for each in fields(Price)})


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceBook:
    """One file of profiles/prices."""

    __pydantic_config__ = STRICT

    id: str
    prices: tuple[BookEntry, ...] = ()


price_books: Catalog[PriceBook] = Catalog("prices", PriceBook, "price book")


def priced(system: SystemProfile) -> SystemProfile:
    """The system with the prices of every book added; the newest of a kind is the one used."""
    return with_prices(
        system, (entry.price() for book in price_books.all() for entry in book.prices if entry.system == system.id)
    )


def with_prices(system: SystemProfile, prices: Iterable[Price]) -> SystemProfile:
    """The system with `prices` before its own; of two with one date the first is used."""
    return replace(system, prices=(*prices, *system.prices))


def age_days(price: Price, today: datetime.date) -> int | None:
    """Days since a price was noted; None where its date is no ISO date."""
    try:
        return (today - datetime.date.fromisoformat(price.date)).days
    except ValueError:
        return None


def is_stale(price: Price, today: datetime.date) -> bool:
    """Older than 90 days, or of unknown age."""
    age = age_days(price, today)
    return age is None or age > STALE_DAYS
