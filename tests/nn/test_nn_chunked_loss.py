"""Cross-entropy in chunks against torch's over all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.model import ModelConfig, _tiles
from txlplan.nn import TransformerXL
from txlplan.nn._chunked_loss import chunked_cross_entropy


def inputs(rows: int, words: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((rows, 6), (words, 6), (words,))]
    return tensors, torch.randint(0, words, (rows,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    ("rows", "words", "chunks"), [(1, 7, 7), (40, 7, 3), (41, 300, 1), (41, 300, 16), (0, 5, 2), (3, 5, 4)]
)
def test_loss_and_gradients_are_those_of_all_logits(
    rows: int, words: int, chunks: int, dtype: torch.dtype, tolerance: float
) -> None:
    tensors, targets = inputs(rows, words, dtype)
    expected = F.cross_entropy(F.linear(*tensors), targets, reduction="none")
    found = chunked_cross_entropy(*tensors, targets, chunks)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    weights = torch.rand(rows, dtype=dtype)
    for gradients in zip(*(torch.autograd.grad((weights * each).sum(), tensors) for each in (found, expected)), strict=True):
        torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


def test_autocast_computes_logits_in_its_dtype_and_the_loss_in_fp32() -> None:
    tensors, targets = inputs(30, 50, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked_cross_entropy(*tensors, targets, 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(F.linear(*tensors), targets, reduction="none"), rtol=0.05, atol=0.05)
    assert all(gradient.dtype == torch.float32 for gradient in torch.autograd.grad(found.sum(), tensors))


def test_a_chunk_has_no_more_logits_than_may_exist_at_once() -> None:
    most = _tiles.LOGITS
    for rows, words in ((1, most), (1, most + 1), (1536, 267_735), (4096, 4096), (4096, 4097), (2 * most, 3), (0, 5)):
        chunks = _tiles.loss_chunks(rows, words)
        assert (chunks == 1) == (rows * words <= most)
        assert -(-words // chunks) * rows <= most or chunks == words


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_many_chunks_are_as_exact_as_those_of_one(dtype: torch.dtype) -> None:
    """Nothing is summed over chunks in the narrow dtype of products."""
    tensors, targets = inputs(256, 400, torch.float32)
    narrow = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    exact = [tensor.detach().double().requires_grad_() for tensor in narrow]
    expected = torch.autograd.grad(F.cross_entropy(F.linear(*exact), targets), exact)

    def errors(chunks: int) -> list[float]:
        found = torch.autograd.grad(chunked_cross_entropy(*narrow, targets, chunks).mean(), narrow)
        return [float((one.double() - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]

    for many, one in zip(errors(40), errors(1), strict=True):
        assert many <= 1.2 * one


def test_a_step_over_267735_words_has_no_tensor_of_all_logits() -> None:
    """8 sequences of 192 tokens: 1.6 GB of logits were they whole. The largest tensor is a chunk of 64 MiB."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    words = 267_735
    config = ModelConfig(id="t", n_layer=1, d_model=8, n_head=1, d_head=8, d_inner=8, vocab_size=words, tgt_len=192, mem_len=0)
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest[0] = max(largest[0], result.untyped_storage().nbytes())
            return result

    with FakeTensorMode():
        module = TransformerXL(config)
        tokens = torch.zeros(8, 192, dtype=torch.int64)
        with Watch():
            hidden, _ = module(tokens, module.initial_memory(8), torch.zeros((), dtype=torch.int64))
            module.nll(hidden, tokens).mean().backward()
    assert largest[0] <= 64 << 20
