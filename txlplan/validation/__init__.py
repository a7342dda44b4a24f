"""How good the predictions were: records scored against the estimates stored before they ran. Pure."""

from txlplan.validation._errors import Errors, errors
from txlplan.validation._rows import Row, Scored, Unscored, score
from txlplan.validation._validate import GROUPINGS, Summary, Validation, validate

__all__ = ["GROUPINGS", "Errors", "Row", "Scored", "Summary", "Unscored", "Validation", "errors", "score", "validate"]
