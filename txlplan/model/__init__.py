"""The Transformer-XL configuration, as plain data, and what follows from it alone."""

from txlplan.model._config import ModelConfig
from txlplan.model._flops import forward_flops_per_token
from txlplan.model._parameters import parameter_count, parameter_groups, parameter_shapes
from txlplan.model._presets import models

__all__ = ["ModelConfig", "forward_flops_per_token", "models", "parameter_count", "parameter_groups", "parameter_shapes"]
