"""Whether the largest micro-batch that a traced peak allows fits, and one more does not: 42 cases of the published code.

The truth is a small torch module of its operations on fake tensors, written from the description in `_published_layer`; the
device's memory ends halfway between the two peaks. What an allocator holds beside live tensors is not in it.
Shape suffixes: T segment, S memory and segment, M memory, B sequences, D d_model, W heads by their width.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from txlplan.cost import estimate
from txlplan.hardware import Cluster, Link, SystemProfile, devices, stacks
from txlplan.model import ModelConfig, parameter_count
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload

SIZES = ((64, 2, 8000, 64, 64, 4), (64, 4, 12000, 48, 96, 7), (128, 4, 8000, 96, 96, 5), (96, 3, 20000, 32, 64, 11),
         (128, 8, 30000, 64, 32, 3), (256, 4, 10000, 64, 128, 9), (192, 6, 16000, 80, 80, 6))  # fmt: skip
"""d_model, heads, vocabulary, segment, memory, and the micro-batch that just fits."""
PRECISIONS = ("fp32", "tf32", "fp16")


def dropped(x: Tensor, rate: float) -> Tensor:
    """Dropout that keeps a mask of bytes, as on CUDA."""
    return torch.native_dropout(x, rate, True)[0] if rate > 0 else x


class Layer(nn.Module):
    """Relative attention with separate score products, then the feed-forward; layer norm after each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.n_head * config.d_head
        self.qkv = nn.Linear(config.d_model, 3 * width, bias=False)
        self.positions = nn.Linear(config.d_model, width, bias=False)
        self.output = nn.Linear(width, config.d_model, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(2))
        self.inner, self.outer = nn.Linear(config.d_model, config.d_inner), nn.Linear(config.d_inner, config.d_model)

    def forward(
        self, x_TBD: Tensor, memory_MBD: Tensor, sinusoids_SD: Tensor, biases: tuple[Tensor, Tensor], mask: Tensor
    ) -> Tensor:
        c = self.config
        T, B = x_TBD.shape[:2]
        joined_SBD = torch.cat([memory_MBD, x_TBD])
        S = joined_SBD.shape[0]
        q, k, v = self.qkv(joined_SBD).view(S, B, c.n_head, 3 * c.d_head).chunk(3, dim=-1)
        r = self.positions(sinusoids_SD).view(S, c.n_head, c.d_head)
        content = ((q[-T:] + biases[0]).view(T, B * c.n_head, c.d_head).transpose(0, 1)) @ k.reshape(
            S, B * c.n_head, c.d_head
        ).permute(1, 2, 0)
        by_head = (q[-T:] + biases[1]).view(T * B, c.n_head, c.d_head).transpose(0, 1) @ r.permute(1, 2, 0)
        position = by_head.view(c.n_head, T, B, S).permute(2, 0, 1, 3).reshape(B * c.n_head, T, S)
        padded = torch.cat([position.new_zeros(B * c.n_head, T, 1), position], dim=2)
        shifted = padded.view(B * c.n_head, S + 1, T)[:, 1:].view(B * c.n_head, T, S)
        scores = (content + shifted).mul_(c.d_head**-0.5)
        wide = scores.float().masked_fill(mask, -65000.0).to(scores.dtype)
        weights = dropped(F.softmax(wide, dim=-1), c.dropatt)
        mixed = weights @ v.reshape(S, B * c.n_head, c.d_head).transpose(0, 1)
        mixed_TBW = mixed.transpose(0, 1).reshape(T, B, c.n_head * c.d_head)
        x_TBD = self.norms[0](x_TBD + dropped(self.output(mixed_TBW), c.dropout))
        hidden = self.outer(dropped(F.relu(self.inner(x_TBD)), c.dropout))
        return self.norms[1](x_TBD + dropped(hidden, c.dropout))


class Published(nn.Module):
    """The whole model with a full softmax, tied to the embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.d_model)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(config.n_head, config.d_head)) for _ in range(2))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))

    def forward(self, tokens_TB: Tensor, memories: list[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        c = self.config
        x = dropped(self.table(tokens_TB) * c.d_model**0.5, c.dropout)
        sinusoids = torch.zeros(c.mem_len + c.tgt_len, c.d_model, dtype=x.dtype)
        inputs = []
        for layer, memory in zip(self.layers, memories, strict=True):
            inputs.append(x)
            x = layer(x, memory, sinusoids, (self.biases[0], self.biases[1]), mask)
        x = dropped(x, c.dropout)
        with torch.no_grad():
            memories = [torch.cat([old, new])[-c.mem_len :] for old, new in zip(memories, inputs, strict=True)]
        logits = F.linear(x, self.table.weight, self.bias)
        losses = -F.log_softmax(logits, dim=-1).gather(-1, tokens_TB[..., None])
        return losses.float().mean(), memories


def traced_peak_bytes(config: ModelConfig, micro_batch: int, *, half: bool) -> int:
    """Most that is alive in a micro-batch to whose gradients it adds: parameters, gradients, memory and activations."""
    before = torch.get_default_dtype()
    dtype = torch.float16 if half else torch.float32
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode():
            return _traced(config, micro_batch)
    finally:
        torch.set_default_dtype(before)


def _traced(config: ModelConfig, micro_batch: int) -> int:
    model = Published(config).train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    memories = [torch.zeros(config.mem_len, micro_batch, config.d_model) for _ in range(config.n_layer)]
    mask = torch.zeros(config.tgt_len, config.mem_len + config.tgt_len, dtype=torch.bool)
    tokens = torch.zeros(config.tgt_len, micro_batch, dtype=torch.int64)
    tracker = MemTracker()
    tracker.track_external(model, *(parameter.grad for parameter in model.parameters()), *memories)
    with tracker:
        loss, memories = model(tokens, memories, mask)
        loss.backward()
    return sum(int(each["Total"]) for each in tracker.get_tracker_snapshot("peak").values())


def model(d_model: int, heads: int, words: int, segment: int, memory: int) -> ModelConfig:
    return ModelConfig(
        id="drawn",
        n_layer=1,
        d_model=d_model,
        n_head=heads,
        d_head=d_model // heads,
        d_inner=3 * d_model,
        vocab_size=words,
        tgt_len=segment,
        mem_len=memory,
        dropout=0.1,
        untie_r=False,
    )


@lru_cache
def traced(shape: tuple[int, ...], micro_batch: int, half: bool) -> int:
    return traced_peak_bytes(model(*shape), micro_batch, half=half)


@pytest.mark.no_cover
@pytest.mark.parametrize(("size", "precision"), list(product(SIZES, PRECISIONS)), ids=str)
def test_the_largest_micro_batch_fits_and_one_more_does_not(size, precision):
    *shape, largest = size
    config, half = model(*shape), precision == "fp16"
    peaks = [traced(tuple(shape), micro_batch, half) for micro_batch in (largest, largest + 1)]
    kept = parameter_count(config) * (16 if half else 8)
    device = replace(devices.get("a100-sxm4-40gb"), memory_usable_bytes=kept + sum(peaks) // 2)
    link = Link(kind="nvswitch2", bandwidth_bytes_per_s=3e11)
    box = SystemProfile(id="box", name="box", kind="server", device=device.id, n_devices=2, intra_node=link)
    stack = replace(stacks.get("nvidia-20.06-eager"), reserved=None, context_bytes=0)
    workload = Workload(model=config, optimization=Optimization(optimizer="adam"), memory_headroom=0.0)
    plans = [Plan(micro_batch=each, precision=precision, data_parallel=2) for each in (largest, largest + 1)]
    found = estimate(workload, Cluster(system=box, device=device), stack, plans)
    assert found.fits.tolist() == [True, False], (found.peak_memory_bytes / (kept + peaks[0]), peaks[1] / peaks[0])
