"""The closed sets of names that files, records, the command line and the code share. Imports nothing, so that a command
line can offer them without loading what they describe."""

from __future__ import annotations

from typing import Literal

Task = Literal["train", "score", "generate"]
"""What is done with a model."""
Objective = Literal["fastest", "cheapest", "least-energy", "fewest-devices"]
OptimizerName = Literal["adam", "adamw", "adafactor", "lamb"]
Schedule = Literal["constant", "linear", "cosine", "inverse-sqrt", "exponential", "cyclic"]
"""How the learning rate moves after warm-up."""
Precision = Literal["fp32", "tf32", "fp16", "bf16"]
"""What matrix products compute in."""
Checkpointing = Literal["none", "attention", "feed-forward", "full"]
"""Activation checkpointing: of nothing, of the operations of one kind (selective), or of whole layers."""
StatePrecision = Literal["fp32", "bf16"]
"""What optimizer states are stored in."""
Offload = Literal["none", "optimizer"]
"""What is kept and computed on the host."""
AttentionPath = Literal["reference", "fast", "compiled"]
"""How attention is computed: readably, with every score in memory; a tile of scores at a time; or so by C++ of our own, which a
CPU's training in fp32 has. All give one result."""
Outcome = Literal["running", "ok", "oom", "failed", "stopped"]
"""How a run ended."""
RecordKind = Literal["run", "trial", "bench"]
"""What a run was for."""
