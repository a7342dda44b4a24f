"""A plan, and the file `plan.toml` that makes it runnable anywhere."""

from txlplan.plan_file._file import DataSettings, PlanFile, RunSettings, Sampling, read_plan_file, write_plan_file
from txlplan.plan_file._plan import Plan

__all__ = ["DataSettings", "Plan", "PlanFile", "RunSettings", "Sampling", "read_plan_file", "write_plan_file"]
