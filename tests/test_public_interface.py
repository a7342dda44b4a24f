"""What `import txlplan` promises."""

from __future__ import annotations

import pytest

import txlplan
from txlplan import advice, cost


def test_the_verbs_are_those_of_their_packages() -> None:
    assert txlplan.estimate is cost.estimate
    assert txlplan.plan is advice.plan
    assert txlplan.compare is advice.compare


def test_everything_promised_is_there() -> None:
    assert sorted(txlplan.__all__) == ["__version__", "compare", "estimate", "plan"]
    assert all(hasattr(txlplan, name) for name in txlplan.__all__)


def test_anything_else_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'estimat'"):
        _ = txlplan.estimat
