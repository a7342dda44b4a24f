"""How good the predictions were: records scored against the estimates stored before they ran. Pure."""

from txlplan.validation._errors import Errors, errors
from txlplan.validation._order import Order, Ranking, rank
from txlplan.validation._predict import predict
from txlplan.validation._published import Published, Unreadable, read_published
from txlplan.validation._rows import Row, Scored, Unscored, score
from txlplan.validation._validate import GROUPINGS, Summary, Validation, summarise, validate

__all__ = [
    "GROUPINGS",
    "Errors",
    "Order",
    "Published",
    "Ranking",
    "Row",
    "Scored",
    "Summary",
    "Unreadable",
    "Unscored",
    "Validation",
    "errors",
    "predict",
    "rank",
    "read_published",
    "score",
    "summarise",
    "validate",
]
