"""Repeat runs over a matrix of models and plans, and sum them up beside their predictions."""

from txlplan.benchmarks._against import Change, baseline, changes
from txlplan.benchmarks._bench import Bench, Repeat, create, directory_of, run_bench, stored_matrix
from txlplan.benchmarks._matrix import Case, Matrix, cases, matrix_of, read_matrix
from txlplan.benchmarks._stability import Reference
from txlplan.benchmarks._stability import measure as reference
from txlplan.benchmarks._summary import Row, Spread, spread, summarise

__all__ = [
    "Bench",
    "Case",
    "Change",
    "Matrix",
    "Reference",
    "Repeat",
    "Row",
    "Spread",
    "baseline",
    "cases",
    "changes",
    "create",
    "directory_of",
    "matrix_of",
    "read_matrix",
    "reference",
    "run_bench",
    "spread",
    "stored_matrix",
    "summarise",
]
