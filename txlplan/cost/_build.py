"""The op stream of one micro-batch and one update, as an implementation and its loop run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from txlplan.choices import Checkpointing, Precision, Task
from txlplan.cost._compiled_layer import compiled_layer, first_input
from txlplan.cost._ends import DRAWING, RowsMadeUp, embedding, log_probabilities, loss, remember, widens_logits, zipf_shares
from txlplan.cost._fast_layer import fast_layer
from txlplan.cost._fused_layer import fused_layer
from txlplan.cost._layer import Lengths, layer
from txlplan.cost._numbers import Numbers
from txlplan.cost._op_stream import FloatArray, Op, OpStream
from txlplan.cost._published_layer import published_layer
from txlplan.cost._ring import as_summed, compiled_calls, reading, streamed
from txlplan.cost._section import AUTOCAST_COPY, Section
from txlplan.cost._update import accumulation, published_update, update
from txlplan.errors import InputError
from txlplan.hardware import DeviceProfile, Implementation, StackProfile
from txlplan.model import ModelConfig
from txlplan.model._parameters import has_projections
from txlplan.model._tiles import SUMMED_ROWS
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What an op stream depends on beside the micro-batch."""

    model: ModelConfig
    task: Task = "train"
    optimization: Optimization
    precision: Precision = "fp32"
    checkpointing: Checkpointing = "none"
    fused_dropout: bool = False
    """Dropout is one kernel (CUDA); on a CPU its mask is drawn before, but by code of our own."""
    full_precision_copy: bool = True
    """Parameters are fp32 and products cast them (autocast); False: everything is in the plan's precision."""
    implementation: Implementation = "reference"
    """Whose kernels: our fast path's, our reference's, or those of the code that the published rows ran."""
    own_attention: bool = False
    """The fast path's attention is code of our own, and so is all dropout."""
    tail_shares: tuple[float, ...] | None = None
    """Share of the targets in each further cluster of the softmax; None: by Zipf's law."""
    tensor_parallel: int = 1
    """Devices that share heads, inner states and words (Megatron-LM: Shoeybi et al. 2019, arXiv:1909.08053)."""
    context_parallel: int = 1
    """Devices that share the positions of segment and memory."""
    compiled: bool = False
    """The step of generation is compiled; the layers that train on a GPU are graphs of kernels."""
    several_threads: bool = False
    """A CPU computes with more than one: single tokens' products in fp32 are cut for them."""
    bf16_units: bool = False
    """A CPU has units for products of bf16: it packs the weights of some products of few rows."""
    prompt_len: int = 0
    """Tokens of the longest prompt, which is read apart, into a memory of its own."""

    @classmethod
    def of(cls, workload: Workload, device: DeviceProfile, stack: StackProfile, plan: Plan) -> Settings:
        """As a plan runs under a stack; only a stack of ours has several ways to compute attention."""
        ours = stack.implementation in ("fast", "fused")
        reference = ours and plan.attention == "reference" and workload.task == "train"
        return cls(
            model=workload.model,
            task=workload.task,
            optimization=workload.optimization,
            precision=plan.computes_in(workload.task, bf16_units=device.multiplies_bf16),
            checkpointing=plan.activation_checkpointing if workload.task == "train" else "none",
            fused_dropout=device.kind != "cpu",
            full_precision_copy=stack.mixed_precision == "autocast",
            implementation="reference" if reference else stack.implementation,
            own_attention=stack.implementation == "fast" and plan.attention == "compiled" and workload.task != "generate",
            tensor_parallel=plan.tensor_parallel,
            context_parallel=plan.context_parallel,
            compiled=plan.compile,
            several_threads=device.kind == "cpu" and (plan.threads or device.cores) > 1,
            bf16_units=device.kind == "cpu" and device.multiplies_bf16,
            prompt_len=workload.prompt_len,
        )

    @property
    def sharded(self) -> ModelConfig:
        """What one device holds of the model: its heads, its inner states, and its words of every cluster."""
        return sharded(self.model, self.tensor_parallel)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the targets in each further cluster."""
        return tuple(zipf_shares(self.model)) if self.tail_shares is None else self.tail_shares

    @property
    def own_linear(self) -> bool:
        """Whether code of our own multiplies by the weights of layers, in fp32 as they are."""
        return self.own_attention and self.task == "train" and self.numbers.halved

    @property
    def own_norm(self) -> bool:
        """Whether it adds a layer's residuals and norms them, too."""
        return self.own_linear and self.model.norm == "post" and self.numbers.narrows

    @property
    def keeps_inputs(self) -> bool:
        """Whether a layer keeps its input for its backward, and not just what it makes of it."""
        return self.implementation in ("fast", "fused") and (self.model.norm == "pre" or not self.numbers.narrows)

    @property
    def captured(self) -> bool:
        """Whether no host dispatches the operations of layers."""
        return self.compiled and self.task == "train" and self.implementation in ("fused", "reference")

    @property
    def summed(self) -> bool:
        """Whether products of few rows are sums in code compiled for a CPU."""
        return self.compiled and self.task == "generate" and self.implementation == "fast"

    @property
    def packs(self) -> bool:
        """Whether single tokens read packed copies of weights, where those and their rows are such."""
        plain = self.task == "generate" and self.implementation == "fast" and not self.compiled
        return plain and self.bf16_units and self.precision in ("fp32", "bf16")

    @property
    def gpu_loss(self) -> bool:
        """Whether words' probabilities are computed as on a GPU, and their loss in chunks as large."""
        return self.implementation == "fused" or (self.implementation == "reference" and self.fused_dropout)

    @property
    def widens_logits(self) -> bool:
        """Whether a token's logits are widened by no operation of their own, though narrow."""
        return self.task == "generate" and widens_logits(self.numbers, on_gpu=self.gpu_loss)

    @property
    def made_up(self) -> RowsMadeUp:
        """Whether rows of a CPU's products of 2 bytes are in numbers that come again. Counts are those of a trace on a CPU."""
        if self.implementation == "published" or self.gpu_loss or not self.numbers.halved:
            return "no"
        if self.tail_shares is not None:
            return "counted"
        return "no" if self.implementation == "xla" else "expected"

    @property
    def keeps_keys(self) -> bool:
        """Whether keys and values are kept from step to step, not hidden states: nothing is trained on our own stack."""
        return self.task != "train" and self.implementation in ("fast", "fused", "xla")

    @property
    def keeps_memory(self) -> bool:
        """Whether the old memory is kept for the layers' backward: to run them again, or as what the fast path has normed, or
        as what keys and values of the memory alone are products of."""
        numbers, pre = self.numbers, self.model.norm == "pre"
        normed = self.implementation in ("fast", "fused") and pre and numbers.residual == numbers.wide
        multiplied = self.own_attention and not pre and not numbers.cast
        return self.checkpointing == "full" or normed or multiplied

    @property
    def keeps_casts(self) -> bool:
        """Whether the stream accounts for autocast's copies of weights; of other code's `_statics` counts one of each."""
        return self.task == "train" and self.implementation != "published"

    @property
    def numbers(self) -> Numbers:
        """Bytes of an element in products, and elsewhere.

        A projected embedding comes out of a product, and a CPU's norms, which autocast leaves alone, keep its precision.
        """
        compute = 2.0 if self.precision in ("fp16", "bf16") else 4.0
        wide = 4.0 if self.full_precision_copy else compute
        projected = has_projections(self.model) and not self.fused_dropout and self.implementation != "published"
        return Numbers(dtype=self.precision, compute=compute, wide=wide, residual=compute if projected else wide)


@lru_cache(maxsize=256)
def sharded(model: ModelConfig, tensor_parallel: int) -> ModelConfig:
    """A device's part of a model whose heads and inner states divide by `tensor_parallel`; words are padded to do so.

    Norms, projections of embeddings and positions are on every device whole, as in Megatron-LM (arXiv:1909.08053, §3).
    Raises InputError where heads or inner states do not divide, or clusters of words are too small.
    """
    if tensor_parallel == 1:
        return model
    for name in ("n_head", "d_inner"):
        if getattr(model, name) % tensor_parallel:
            raise InputError(f"tensor_parallel = {tensor_parallel} does not divide {name} = {getattr(model, name)}")
    return replace(
        model,
        n_head=model.n_head // tensor_parallel,
        d_inner=model.d_inner // tensor_parallel,
        vocab_size=-(-model.vocab_size // tensor_parallel),
        cutoffs=tuple(-(-cutoff // tensor_parallel) for cutoff in model.cutoffs),
    )


def build(settings: Settings, micro_batch: FloatArray) -> OpStream:
    """Forward (and in training backward and update) of one micro-batch of `micro_batch` sequences [candidates].

    Generation runs one token of each sequence against a full memory.
    """
    if settings.keeps_keys:
        return _reading(settings, micro_batch)
    model, training, share = settings.sharded, settings.task == "train", settings.context_parallel
    queries = 1 if settings.task == "generate" else model.tgt_len // share
    at = Lengths(B=micro_batch, T=queries, M=model.mem_len // share, model=model, context_parallel=share)

    def section(name: str, repeat: float = 1.0) -> Section:
        """An empty one, as these settings run it."""
        return Section(
            name,
            settings.numbers,
            repeat=repeat,
            training=training,
            fused_dropout=settings.fused_dropout,
            keeps_casts=settings.keeps_casts,
            own_loss=settings.implementation != "published",
            gpu_loss=settings.gpu_loss,
            own_dropout=settings.own_attention,
            own_linear=settings.own_linear and name == "layers",
            own_norm=settings.own_norm and name == "layers",
        )

    first, layers, last = section("embedding"), section("layers", model.n_layer), section("softmax")
    embedding(first, at)
    if settings.own_norm:
        first_input(first, at)
    (compiled_layer if settings.own_attention else _LAYERS[settings.implementation])(layers, at)
    remember(last, at, joins=settings.implementation == "published" or at.T < at.M)
    if settings.task == "generate":
        log_probabilities(last, at)
    else:
        loss(last, at, settings.shares, made_up=settings.made_up)
    inputs_bytes = at.BTD * settings.numbers.residual
    if settings.checkpointing == "full":
        inputs_bytes = inputs_bytes + begun_with_bytes(settings, at.rows)
    ops = [
        *first.forward(),
        *_layers_forward(settings, layers, inputs_bytes),
        *_memory_exchanged(settings, at, last.forward(), inputs_bytes, _cached_bytes(settings, layers)),
        *last.backward(),
        *_layers_backward(settings, layers, at, inputs_bytes),
        *([_old_memory(settings, at)] if settings.keeps_memory else []),
        *first.backward(),
        *(_update(settings) if training else []),
    ]
    return OpStream.of(ops, micro_batch.size)


def _reading(settings: Settings, micro_batch: FloatArray) -> OpStream:
    """As above, with keys and values kept. Where the lengths are equal, a token does not see the oldest memory slot."""
    model, one, share = settings.sharded, settings.task == "generate", settings.context_parallel
    slots = model.mem_len - 1 if one and model.same_length else model.mem_len // share
    at = Lengths(B=micro_batch, T=1 if one else model.tgt_len // share, M=slots, model=model, context_parallel=share)
    wide = Numbers(dtype="fp32", compute=4.0)

    def section(name: str, numbers: Numbers, repeat: float = 1.0) -> Section:
        """An empty one, in which nothing is trained."""
        return Section(
            name,
            numbers,
            repeat=repeat,
            training=False,
            fused_dropout=False,
            casts_weights=False,
            own_loss=True,
            gpu_loss=settings.gpu_loss,
        )

    first, layers = section("embedding", wide), section("layers", settings.numbers, model.n_layer)
    last = section("softmax", settings.numbers)
    cut = settings.several_threads and settings.precision == "fp32" and not settings.compiled
    fused = settings.implementation == "fused"
    in_place = settings.implementation == "fast" and settings.numbers.halved and not settings.compiled
    reading(
        first,
        layers,
        last,
        at,
        settings.shares,
        made_up=settings.made_up,
        adds_biases=cut,
        fused=fused,
        own_attention=settings.own_attention,
        in_place=in_place,
        packs=settings.packs,
    )
    ops = [*first.forward(), *layers.forward(), *last.forward()]
    if one and settings.implementation == "fast":
        ops = [streamed(at, settings.numbers), *ops]
    if settings.summed:
        ops = [each for op in ops for each in as_summed(op, micro_batch)]
    if settings.compiled:
        ops = [_compiled(settings, op, micro_batch) for op in ops]
    if settings.summed:
        ops += compiled_calls(micro_batch, model.n_layer)
    return OpStream.of(ops, micro_batch.size)


def _compiled(settings: Settings, op: Op, rows: FloatArray) -> Op:
    """On a GPU fused kernels are fewer, and so is their host's time; on a CPU operations stay, but are called faster."""
    share = _dispatch_share(settings, op, rows)
    return replace(op, dispatch=share) if settings.summed else replace(op, launches=op.launches * share)


def _dispatch_share(settings: Settings, op: Op, rows: FloatArray) -> FloatArray | float:
    """Of layers, and on a CPU with few rows of the softmax too, but not of drawing words by it."""
    share = COMPILED_DISPATCH["gpu" if settings.implementation == "fused" else "cpu"]
    if op.section != "layers":
        if op.section != "softmax" or op.name in DRAWING:
            return 1.0
        share = 1.0
    return np.where(rows <= SUMMED_ROWS, 0.0, share) if settings.summed else share


COMPILED_DISPATCH = {"cpu": 0.30, "gpu": 0.81}
"""Host time of a compiled layer's step over that of the eager one, of layers of width 16 (`benchmarks/inference.py dispatch`),
by torch's compiler: of the code that reads few rows on a CPU, `compiled_calls` says what it takes. CPU: 142 against 460 us, 2
cores of an AMD EPYC (Zen 3), torch 2.13, 2026-11-26. GPU: 8.8 against 10.6 ms a token of 16 layers of width 512 and their loss
(H200, torch 2.11, 2026-11-26)."""
_LAYERS: dict[Implementation, Callable[[Section, Lengths], None]] = {
    "reference": layer,
    "xla": layer,
    "published": published_layer,
    "fast": fast_layer,
    "fused": fused_layer,
}


def _update(settings: Settings) -> list[Op]:
    """Adding gradients of further micro-batches (in the figures that were fitted to published code it is not told apart), then
    the update."""
    model, precision = settings.sharded, settings.precision
    if settings.implementation == "published":
        return published_update(settings.optimization, model, precision)
    return [
        accumulation(model, settings.numbers.wide),
        *update(settings.optimization, model, precision, on_gpu=settings.fused_dropout),
    ]


def _note(name: str, section: str, phase_forward: bool, saved_bytes: FloatArray, repeat: float = 1.0) -> Op:
    """Bookkeeping of memory that takes no time."""
    return Op(
        name=name,
        group="recurrent memory",
        section=section,
        kind="copy",
        phase="forward" if phase_forward else "backward",
        dtype="fp32",
        saved_bytes=saved_bytes,
        launches=0.0,
        repeat=repeat,
    )


def _layers_forward(settings: Settings, layers: Section, inputs_bytes: FloatArray) -> list[Op]:
    """Each layer's input is held for the recurrent memory; with checkpointing nothing else is kept."""
    held = _note("layer input", "layers", True, inputs_bytes, settings.model.n_layer)
    if settings.checkpointing == "none":
        return [held, *layers.forward()]
    return [held, *(_forgetting(op) for op in layers.forward())]


def _forgetting(op: Op) -> Op:
    """The same operation, when what it keeps is dropped at the end of its layer: alive around it and no longer."""
    return replace(op, saved_bytes=0.0, transient_bytes=op.transient_bytes + op.saved_bytes)


def begun_with_bytes(settings: Settings, tokens: FloatArray) -> FloatArray:
    """What a layer that runs again begins with beside its input, in the mean, [candidates].

    Sinusoids, which are all layers' (otherwise each keeps a narrowed copy, or all the same), and that input in the precision of
    products, where the layer before it gave it.
    """
    model, numbers = settings.model, settings.numbers
    distances = (model.mem_len + model.tgt_len) * model.d_model * numbers.residual if numbers.narrows else 0.0
    narrow = (model.n_layer - 1) * tokens * model.d_model * numbers.compute if settings.own_norm else 0.0 * tokens
    return (distances + narrow) / model.n_layer


def _cached_bytes(settings: Settings, layers: Section) -> float:
    """Copies of all layers' weights that nothing but autocast holds: of checkpointed layers, all that it has made."""
    full = settings.checkpointing == "full"
    made = sum(op.saved_bytes for op in layers.forward() if op.name.endswith(AUTOCAST_COPY)) if full else 0.0
    return settings.model.n_layer * (layers.cached + float(made))


def _memory_exchanged(
    settings: Settings, at: Lengths, forward: list[Op], inputs_bytes: FloatArray, cached_bytes: float
) -> list[Op]:
    """After `new memory` the layers' inputs go, unless checkpointing needs them, and the new memory is beside the old.

    What autocast alone holds of the layers is counted from here on; it goes when the loss is computed.
    """
    model = settings.model
    split = 1 + next(row for row, op in enumerate(forward) if op.name == "new memory")
    memory_bytes = model.n_layer * at.B * at.M * model.d_model * settings.numbers.wide
    inputs = 0.0 if settings.checkpointing == "full" else model.n_layer * inputs_bytes
    return [
        _note("casts cached", "softmax", True, np.full(at.B.shape, cached_bytes)),
        *forward[:split],
        _note("new memory", "softmax", True, memory_bytes - inputs),
        *forward[split:],
        _note("casts forgotten", "softmax", True, np.full(at.B.shape, -cached_bytes)),
        *([] if settings.keeps_memory else [_old_memory(settings, at)]),
    ]


def _old_memory(settings: Settings, at: Lengths) -> Op:
    """The old memory goes when the loss is computed, or after the layers' backward where that reads it again."""
    memory_bytes = settings.model.n_layer * at.B * at.M * settings.model.d_model * settings.numbers.wide
    return _note("old memory", "old memory", not settings.keeps_memory, -memory_bytes)


def last_kept(ops: Sequence[Op]) -> int:
    """The last operation that keeps something: what comes after it is not run again (torch.utils.checkpoint stops early).

    Products of linear layers by code of our own keep what others kept before, but only once they are done.
    """
    return max(row for row, op in enumerate(ops) if np.any(np.asarray(op.saved_bytes) > 0) or op.kind == "linear")


def _layers_backward(settings: Settings, layers: Section, at: Lengths, inputs_bytes: FloatArray) -> list[Op]:
    """A layer's backward, and before it, with checkpointing, its forward; the gradient of the residual is there all along.

    (What is fitted to published code takes that for what the allocator reserves.)
    """
    before, after = [], []
    if layers.training and settings.implementation != "published":
        gradient = at.BTD * (settings.numbers.residual + settings.own_norm * settings.numbers.compute)
        before, after = (
            [_note(f"residual gradient {what}", "layers backward", False, sign * gradient, settings.model.n_layer)]
            for what, sign in (("waits", 1.0), ("passed on", -1.0))
        )
    if settings.checkpointing == "none":
        return [*before, *layers.backward(), *after]
    forward = layers.forward()
    again = [replace(op, phase="recompute", section="layers backward") for op in forward[: 1 + last_kept(forward)]]
    released = _note("layer input", "layers backward", False, -inputs_bytes, settings.model.n_layer)
    handed_over = [released, *again, *layers.backward()] if settings.keeps_inputs else [*again, *layers.backward(), released]
    return [*before, *handed_over, *after]
