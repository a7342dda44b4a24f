"""The model as one graph, for programs without Python: torch.export's, and ONNX.

Shape suffixes: B sequences, T tokens, L layers, M memory slots, D d_model, V vocabulary.

    input           shape          output              shape
    tokens          [B, T] int64   log_probabilities   [B, T, V], nats, of the word after each token
    memory          [L, B, M, D]   next_memory         [L, B, M, D]
    valid_length    [] int64       next_valid_length   [] int64

A text begins with a memory of zeros and a valid length of 0; a segment's two last outputs are the next one's inputs.
B and T may change from call to call; T may be shorter or longer than M.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from txlplan.errors import InputError, TxlplanError
from txlplan.nn import TransformerXL

INPUTS = ("tokens", "memory", "valid_length")
OUTPUTS = ("log_probabilities", "next_memory", "next_valid_length")
TOLERANCE = 1e-5
"""Largest difference of an exported graph's numbers from the module's, as a share of those beyond 1: rounding in another order
of operations."""
_SHAPES = ((2, 3), (3, 1), (1, 9))
"""Batches and lengths that a graph is compared at; the first is the one it is made with."""
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
Run = Callable[..., Sequence[Any]]


class Scorer(nn.Module):
    """Log-probabilities of every next word, and what the next segment needs."""

    def __init__(self, model: TransformerXL) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and outputs as in the table above."""
        hidden_BTD, inputs = self.model.states(tokens_BT, memory_LBMD, valid_length)
        log_BTV = self.model.log_probabilities(hidden_BTD.flatten(0, 1)).unflatten(0, tokens_BT.shape)
        joined = torch.cat([memory_LBMD, torch.stack(inputs)], dim=2)
        next_memory = joined.narrow(2, tokens_BT.shape[1], memory_LBMD.shape[2])
        return log_BTV, next_memory, self.model.advance(valid_length, tokens_BT.shape[1])


def write_torch_export(model: TransformerXL, path: Path) -> float:
    """Write a `.pt2` of torch.export; the largest difference in nats of what it gives, read back, from the module."""
    torch.export.save(exported(model), path)
    return _checked(model, torch.export.load(path).module())


def write_onnx(model: TransformerXL, path: Path) -> float:
    """Write an ONNX file; the largest difference in nats of onnxruntime's outputs from the module's.

    Raises InputError where the packages of the extra `onnx` are not installed.
    """
    require_onnx()
    import onnxruntime

    with _quiet():
        program = torch.onnx.export(exported(model), input_names=INPUTS, output_names=OUTPUTS, dynamo=True, verbose=False)
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*arguments: Tensor) -> list[Tensor]:
        given = zip(INPUTS, (argument.numpy() for argument in arguments), strict=True)
        return [torch.from_numpy(array) for array in session.run(OUTPUTS, dict(given))]

    return _checked(model, run)


def require_onnx() -> None:
    """Raise InputError that names the first package of the extra that is missing."""
    for package in _ONNX_PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"ONNX needs the package {package}", hint="pip install 'txlplan[onnx]'") from None


def exported(model: TransformerXL) -> ExportedProgram:
    """The graph, with any batch and length."""
    batch, length = Dim("batch"), Dim("length")
    shapes = {"tokens_BT": {0: batch, 1: length}, "memory_LBMD": {1: batch}, "valid_length": None}
    return torch.export.export(Scorer(model).eval(), _arguments(model, *_SHAPES[0]), dynamic_shapes=shapes)


def _arguments(model: TransformerXL, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs with a memory that is partly filled, the same at every call."""
    random = torch.Generator().manual_seed(batch + length)
    tokens_BT = torch.randint(0, model.config.vocab_size, (batch, length), generator=random)
    memory_LBMD = torch.randn(model.initial_memory(batch).shape, generator=random)
    return tokens_BT, memory_LBMD, torch.tensor(model.config.mem_len // 2)


def _checked(model: TransformerXL, run: Run) -> float:
    """Compare a graph with the module at several shapes. Raises TxlplanError where they differ."""
    largest = 0.0
    for batch, length in _SHAPES:
        arguments = _arguments(model, batch, length)
        with torch.no_grad():
            pairs = zip(Scorer(model)(*arguments), run(*arguments), strict=True)
        for ours, theirs in pairs:
            off = (ours - theirs).abs()
            if not bool((off <= TOLERANCE * ours.abs().clamp(min=1)).all()):
                raise TxlplanError(
                    f"the exported graph differs from the model by {float(off.max()):.1e} nats: it is not written"
                )
            largest = max(largest, float(off.max()) if off.numel() else 0.0)
    return largest


class _quiet(warnings.catch_warnings):  # noqa: N801  (a context manager, used as one)
    """Without what the exporter says of itself: its warnings of future changes, its log of passes."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *reason: object) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*reason)
