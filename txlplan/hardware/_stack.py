"""A stack: the software that runs the model, and what it makes of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from txlplan.choices import Precision, Task
from txlplan.config._schema import STRICT, toml_key
from txlplan.errors import InputError
from txlplan.hardware._device import Provenance
from txlplan.hardware._kernels import KernelModel, OddProducts, ReservedModel
from txlplan.units import BYTES, BYTES_PER_S, SECONDS

OpKind = Literal[
    "gemm",
    "linear",
    "bmm",
    "attention",
    "scored attention",
    "token attention",
    "summed",
    "softmax",
    "elementwise",
    "norm",
    "gather",
    "loss",
    "sampling",
    "random",
    "dropout",
    "optimizer",
    "copy",
    "collective",
]
"""What an operation is, for its efficiency: see cost/. `linear` is a product in bf16 with a weight of fp32 by code of our own,
`gemm` any other of a layer; `attention` is scores, softmax and weighted values in one kernel; on a CPU `scored attention` is
that of segments by code of our own which keeps nothing, and `token attention` that of single tokens; `summed` is products of
few rows in code compiled for a CPU, sums in fp32 whatever they read; `random` is masks of dropout that torch draws on a CPU,
`dropout` what code of our own draws and multiplies in one pass, or draws alone (int8)."""
PRODUCTS = ("gemm", "linear", "bmm", "attention", "scored attention", "token attention", "summed")
"""Kinds whose work is FLOPs and whose ceiling is the peak of a dtype; of all others it is bytes and the memory bandwidth."""
Phase = Literal["forward", "backward", "weights", "read"]
"""When an operation runs: `backward` is what gives the gradient of its input, `weights` that of a layer's weight, `read` is
forward where nothing has a backward; what has no points of `read` takes as long there as forward."""
Implementation = Literal["reference", "published", "fast", "fused", "xla"]
"""Whose kernels a stack runs: our module's (its fast path on a CPU, that on CUDA, where attention is fused, or the readable
reference), or those of NVIDIA's DeepLearningExamples Transformer-XL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EfficiencyPoint:
    """The share of a device's ceiling that one kind of op reached at one size.

    The ceiling is the peak FLOP/s of the dtype for PRODUCTS, the memory bandwidth for all other kinds.
    """

    __pydantic_config__ = STRICT

    kind: OpKind
    dtype: str
    work: float
    """Size of one call: FLOPs for PRODUCTS, bytes read and written for the rest."""
    utilisation: float
    """Achieved rate over the ceiling, host and launch time excluded; above 1 where a cache serves the op."""
    m: int | None = None
    n: int | None = None
    k: int | None = None
    """Shape of the product; of attention: queries, keys, width of a head."""
    threads: int | None = None
    """CPU threads it was measured with; None: all."""
    phase: Phase | None = None
    """None: forward and backward together, and reading where it has no points of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenHost:
    """What one operation of a token costs the host on a CPU, where the layers of a model have so many weights.

    It rises with that: what a layer reads drives the code of its operations, and what they find there, out of a core's caches.
    """

    __pydantic_config__ = STRICT

    dtype: Precision
    """Of products."""
    layer_bytes: Annotated[int, BYTES]
    """Of a layer's weights, over the threads."""
    op_s: Annotated[float, SECONDS]
    """Host time of one operation: what whole tokens took beyond the operations as they were timed one by one."""

    def __post_init__(self) -> None:
        _require_positive(self, "layer_bytes", "op_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledTokenHost:
    """What an operation that Python calls costs the host in a token of compiled code on a CPU, where a token reads so much.

    It rises with that: between one token's operations and the next one's, all layers are read through a core's caches.
    """

    __pydantic_config__ = STRICT

    dtype: Precision
    """Of products."""
    token_bytes: Annotated[int, BYTES]
    """Of the weights, keys and values that a token reads, over the threads."""
    op_s: Annotated[float, SECONDS]
    """Host time of one operation: what whole tokens took beyond their sums, and the meetings of their threads."""

    def __post_init__(self) -> None:
        _require_positive(self, "token_bytes", "op_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenReading:
    """How fast the code that reads tokens on a CPU gets so many bytes, again and again in the same order.

    From the cores' own caches, from the last one, or from memory.
    """

    __pydantic_config__ = STRICT

    read_bytes: Annotated[int, BYTES]
    """By all threads."""
    threads: int
    bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S]

    def __post_init__(self) -> None:
        _require_positive(self, "read_bytes", "threads", "bandwidth_bytes_per_s")


def _require_positive(point: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(point, name) < math.inf:
            raise InputError(f"{toml_key(name)} = {getattr(point, name)} must be more than zero, and finite")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How far truth lies from prediction: standard deviation of log(measured / predicted)."""

    __pydantic_config__ = STRICT

    time_log_sd: float
    memory_log_sd: float
    source: str
    """What the figures were taken from."""
    extrapolated_time_log_sd: float | None = None
    """The same for a device that the stack was not fitted on; None: a default is added to the figures above."""
    extrapolated_memory_log_sd: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StackProfile:
    """One file of profiles/stacks."""

    __pydantic_config__ = STRICT

    id: str
    family: str
    """txlplan, nvidia, lambda …: an unknown version falls back on the nearest of its family."""
    version: str
    stands_in_for: str | None = None
    """A version without a profile, in whose place this one was taken: every estimate is extrapolated."""
    mode: Literal["eager", "compiled", "torchscript"] = "eager"
    implementation: Implementation = "reference"
    """Which op-stream builder describes what it executes."""
    mixed_precision: Literal["autocast", "apex-o2", "full"] = "autocast"
    host_op_s: Annotated[float, SECONDS] | None = None
    """Host time to dispatch one operation of the forward pass, eagerly."""
    host_backward_op_s: Annotated[float, SECONDS] | None = None
    """The same for one operation of the backward pass (the autograd engine dispatches it)."""
    host_reading_op_s: Annotated[float, SECONDS] | None = None
    """The same where nothing is differentiated: scoring, generating. None: as the forward pass of training."""
    token_host: tuple[TokenHost, ...] = ()
    """The same for tokens that a CPU generates, by precision and by a layer's weights; none: as above."""
    compiled_token_host: tuple[CompiledTokenHost, ...] = ()
    """The same for tokens that compiled code reads on a CPU, by precision and by what a token reads; none: as any reading."""
    meeting_s: Annotated[float, SECONDS] | None = None
    """How long the threads of a CPU take to wait for each other, and to begin what follows, as they do five times in a layer of
    a compiled token. None: assumed."""
    reading_bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S] | None = None
    """At which tokens take weights from memory on a CPU. None: the device's bandwidth."""
    token_reading: tuple[TokenReading, ...] = ()
    """The same for compiled tokens, by how much they read; none: from memory as above, from a cache at once."""
    launch_s: Annotated[float, SECONDS] | None = None
    """Device time that each kernel costs on top of its work."""
    efficiency: tuple[EfficiencyPoint, ...] = ()
    measured_device: str | None = None
    """Id of the device that `efficiency` was measured on; on any other the estimate is extrapolated."""
    context_bytes: Annotated[int, BYTES] | None = None
    """Memory of a process before it allocates anything: CUDA context, or a CPU process with torch loaded."""
    allocator_waste: float = 0.0
    """Memory held beyond what is live, as a share of what comes and goes in a step: activations, gradients, transients."""
    reading_context_bytes: Annotated[int, BYTES] | None = None
    """`context` of a process that scores or generates, and loads less; None: as in training."""
    reading_waste: float | None = None
    """`allocator_waste` of such a process."""
    worker_s: Annotated[float, SECONDS] | None = None
    """What a process that trains takes besides its steps: to start, load torch, set up and end. None: assumed."""
    unattributed: float = 0.0
    """Time of a whole step beyond its operations and their dispatch, as a share of these: caches left cold, page faults.
    Negative where whole steps take less. Only whole steps show it."""
    unattributed_by_task: Mapping[Task, float] = field(default_factory=dict)
    """`unattributed` of steps that train, score or generate, where runs showed it for each."""
    communication_overlap: float = 0.0
    """Share of gradient all-reduce time that backward hides, at most."""
    gradient_sync: Literal["step", "micro-batch", "none"] = "step"
    """When data-parallel gradients are all-reduced: once a step, after every micro-batch, or never (replicas)."""
    kernels: KernelModel | None = None
    """Fitted model of the device's kernels and of the host; where it is there, `efficiency`, `host_op`, `launch` and
    `communication_overlap` are not used."""
    fitted_devices: tuple[str, ...] = ()
    """Of `kernels`: ids of the devices that it was fitted on; on any other the estimate is extrapolated."""
    odd_products: OddProducts = "tensor"
    """Of `kernels`: what the library does with an odd leading dimension."""
    fused: bool = False
    """Of `kernels`: elementwise operations on attention scores are fused (TorchScript)."""
    host_share: float = 1.0
    """Of `kernels`: dispatch time over that of eager execution."""
    reserved: ReservedModel | None = None
    """Fitted model of the allocator's cache in training; where it is there, `allocator_waste` is not used."""
    spread: Spread | None = None
    doubts: str = ""
    """What the probe that measured it said against itself; every estimate repeats it, and has a wider range."""
    provenance: Provenance = "datasheet"
    fitted_on: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""

    def unattributed_of(self, task: Task) -> float:
        """Of a task's steps, or where nothing is known of those, of all."""
        return self.unattributed_by_task.get(task, self.unattributed)
