"""What runs did take: one self-contained record a run."""

from txlplan.records._record import SCHEMA_VERSION, Environment, LossPoint, Outcome, Record

__all__ = ["SCHEMA_VERSION", "Environment", "LossPoint", "Outcome", "Record"]
