"""A kernel model: the few numbers that turn an op stream into time on any GPU, fitted to published runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from txlplan.config._schema import STRICT
from txlplan.units import SECONDS, WATTS


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelModel:
    """Numbers that were fitted, together, on the rows that the stack's `fitted_on` names. Shares are of data-sheet figures."""

    __pydantic_config__ = STRICT

    product_fp32: float
    """Share of the sustained peak that large fp32 products reach."""
    product_tf32: float
    product_fp16: float
    product_fp16_first: float
    """The same on the first two generations of tensor cores (Volta, Turing)."""
    depth: float
    """Depth k at which prologue and epilogue of a product cost as much as the product, over FMA per multiprocessor and
    clock: they take the same time on faster units."""
    batched: float
    """Share of a product's rate that a batch of small products reaches."""
    odd_fp16: float
    """FMA per multiprocessor and clock, over 256, that bound fp16 products with an odd leading dimension: they load element
    by element, so that no larger tensor core helps."""
    odd_tf32: float
    odd_vector: float
    """Share of the fp32 peak of such fp16 products where the library uses no tensor cores for them."""
    odd_fp32: float
    """Share of its aligned rate of such fp32 products in the same libraries."""
    odd_early: float
    """Rate of such products before CUDA 11.7, over that since."""
    stream: float
    """Share of the memory bandwidth that elementwise kernels and copies reach."""
    loss: float
    """The same for softmax and loss, over `stream`."""
    score_traffic: float
    """Memory traffic of attention scores beside their products, over the bytes of the tensors (strided access)."""
    fused_traffic: float
    """What TorchScript's fusion leaves of it."""
    issue: float
    """Instructions for each element that an elementwise kernel reads or writes."""
    issue_scores: float
    """The same where the elements are attention scores, which are strided."""
    tail_share: float
    """Words in the further clusters of an adaptive softmax, over those by Zipf's law."""
    full_clock_w: Annotated[float, WATTS]
    """Power per multiprocessor, less memory and board, that sustains 1.6 GHz in a 12 or 8 nm process."""
    host_op_s: Annotated[float, SECONDS]
    """Dispatch of one forward operation by a host of relative speed 1."""
    host_backward: float
    """Dispatch of one backward operation, over that of a forward one."""
    host_update: float
    """The same for one operation of the optimizer (TorchScript)."""
    knee: float
    """Host h and device d overlap as (h^knee + d^knee)^(1/knee)."""
    all_reduce: float
    """Bus bandwidth of gradients, over that of a large all-reduce."""
    all_reduce_traffic: float
    """Accesses of memory for each byte of gradients: scaled, copied into buckets and back, while backward wants the same
    bandwidth."""
    all_reduce_wait_s: Annotated[float, SECONDS]
    """Stragglers and bucket bookkeeping of one all-reduce of all gradients by four devices."""


OddProducts = Literal["vector", "early-tensor", "tensor"]
"""What a library does with an odd leading dimension: no tensor cores (before CUDA 11), or slower loads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReservedModel:
    """What a caching allocator holds at its highest in a training step, beside parameters, states and recurrent memory.

    Every number here was fitted on the peak memory of the rows that the stack's `fitted_on` names.
    """

    __pydantic_config__ = STRICT

    saved: float
    """Activations kept for backward, over those that the op stream counts outside the softmax."""
    logits: float
    """Blocks of the size of all logits that are held at once."""
    logits_half: float
    """The same in fp16, with Adam."""
    logits_half_lamb: float
    """The same with LAMB."""
    tables_lamb: float
    """Temporaries of LAMB that stay cached, in fp32 copies of the largest parameter."""
    tables_adam: float
    ceiling: float
    """Share of the usable memory at which the allocator gives cached blocks back instead of asking for more."""
