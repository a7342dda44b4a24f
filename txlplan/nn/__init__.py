"""The Transformer-XL module (Dai et al. 2019, arXiv:1901.02860)."""

from txlplan.nn._inference import Inference
from txlplan.nn._ring import KeyValueRing
from txlplan.nn._transformer_xl import TransformerXL

__all__ = ["Inference", "KeyValueRing", "TransformerXL"]
