"""The catalog of profiles/models."""

from __future__ import annotations

from txlplan.config import Catalog
from txlplan.model._config import ModelConfig

models: Catalog[ModelConfig] = Catalog("models", ModelConfig, "model")
