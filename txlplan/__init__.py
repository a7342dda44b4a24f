"""Plan, run and benchmark Transformer-XL language models on the hardware you have or may buy."""

__version__ = "0.1.0"
