"""The Transformer-XL configuration, as plain data."""

from txlplan.model._config import ModelConfig
from txlplan.model._presets import models

__all__ = ["ModelConfig", "models"]
