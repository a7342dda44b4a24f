"""Prices beyond those in a system's own file: books that a user imported or wrote, and the age of a price."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from txlplan.config import Catalog
from txlplan.config._schema import STRICT
from txlplan.hardware._catalogs import devices, systems
from txlplan.hardware._system import Price, SystemProfile
from txlplan.units import counted

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
    booked = (entry.price() for book in price_books.all() for entry in book.prices if entry.system == system.id)
    return replace(system, prices=(*booked, *system.prices))


def booked_without_system(candidates: Iterable[str] = ()) -> tuple[str, ...]:
    """Of every name in the books that is no system, a sentence, with the nearest that are.

    A device may stand for a node with one; this machine (`local`, `local-gpu`) and `candidates` have no file there.
    """
    known = {*systems.paths(), *devices.paths(), *candidates}
    found: dict[str, None] = {}
    for book in price_books.all():
        for entry in book.prices:
            if entry.system in known or entry.system.partition("-")[0] == "local":
                continue
            nearest = difflib.get_close_matches(entry.system, known, n=3, cutoff=0.4)
            where = f"; nearest: {', '.join(nearest)}" if nearest else ""
            found[f"{price_books.path(book.id)}: no system is called {entry.system!r}, so its price is not used{where}"] = None
    return tuple(found)


def with_prices(system: SystemProfile, prices: Iterable[Price]) -> SystemProfile:
    """The system with `prices` in the place of every other of their kinds, whatever the dates."""
    stated = tuple(prices)
    kinds = {price.kind for price in stated}
    return replace(system, prices=(*stated, *(price for price in system.prices if price.kind not in kinds)))


def age_days(price: Price, today: datetime.date) -> int | None:
    """Days since a price was noted, negative for one of a day to come; None where its day is unknown."""
    return None if price.day is None else (today - price.day).days


def is_stale(price: Price, today: datetime.date) -> bool:
    """Older than 90 days, of unknown age, or of a day to come: not to be relied on without a look."""
    age = age_days(price, today)
    return age is None or not 0 <= age <= STALE_DAYS


def age_text(price: Price, today: datetime.date) -> str:
    """`113 days old`, `of unknown age`, `dated 30 days ahead`."""
    age = age_days(price, today)
    if age is None:
        return "of unknown age"
    return f"{counted(age, 'day')} old" if age >= 0 else f"dated {counted(-age, 'day')} ahead"
