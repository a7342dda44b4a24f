"""Models of other programs, in and out: layouts of state dicts, vocabularies, configurations, exported graphs."""

from txlplan.interchange._export import FORMATS, ExportFormat, export_model
from txlplan.interchange._import import Imported, import_model

__all__ = ["FORMATS", "ExportFormat", "Imported", "export_model", "import_model"]
