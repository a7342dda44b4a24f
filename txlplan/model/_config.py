"""The shape of a Transformer-XL (Dai et al. 2019, arXiv:1901.02860)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from txlplan.config._schema import STRICT
from txlplan.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One file of profiles/models. Lengths are in tokens, widths in elements."""

    __pydantic_config__ = STRICT

    id: str
    name: str = ""
    n_layer: int
    d_model: int
    n_head: int
    d_head: int
    d_inner: int
    """Width of the feed-forward layer."""
    vocab_size: int
    d_embed: int | None = None
    """Width of the embedding of the most frequent words; None: d_model."""
    cutoffs: tuple[int, ...] = ()
    """Ends of the clusters of an adaptive embedding and softmax, ascending, below vocab_size; empty: a full softmax."""
    div_val: int = 1
    """Each further cluster embeds in a width divided by this."""
    tie_weights: bool = True
    """The output embedding is the input embedding."""
    tie_projections: tuple[bool, ...] = ()
    """Per cluster (head first): its output projection is the input one; empty: none is shared with the input."""
    tgt_len: int
    """Tokens of a segment that are predicted."""
    mem_len: int
    """Hidden states of earlier tokens that each layer attends to."""
    clamp_len: int | None = None
    """Relative distances beyond this use its embedding; None: no clamp."""
    same_length: bool = False
    """Every query attends to the same number of keys: the last mem_len, its own among them."""
    norm: Literal["post", "pre"] = "post"
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = 0.0
    dropatt: float = 0.0
    """Dropout of attention probabilities."""
    untie_r: bool = True
    """Each layer has its own u and v biases (r_w_bias, r_r_bias); False: one pair for all."""
    attention: Literal["relative"] = "relative"
    head: Literal["language-model"] = "language-model"
    init_std: float = 0.02
    published_batch: int | None = None
    """Global batch, in sequences, of the paper or script the configuration comes from."""
    largest_published_batch: int | None = None
    """Largest global batch that somebody published a training run with; None: `published_batch`."""
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: str = ""

    def __post_init__(self) -> None:
        for name in ("n_layer", "d_model", "n_head", "d_head", "d_inner", "vocab_size", "tgt_len", "div_val"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.d_embed is not None and self.d_embed < 1:
            raise InputError(f"d_embed = {self.d_embed} must be at least 1")
        if self.mem_len < 0:
            raise InputError(f"mem_len = {self.mem_len} must be zero or more")
        if self.clamp_len is not None and self.clamp_len < 1:
            raise InputError(f"clamp_len = {self.clamp_len} must be at least 1 (leave it out for no clamp)")
        for name in ("dropout", "dropatt"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} must be in [0, 1)")
        if self.d_model % 2:
            raise InputError(f"d_model = {self.d_model} must be even: half of it embeds sines, half cosines")
        if self.same_length and self.mem_len == 0:
            raise InputError("same_length needs mem_len of at least 1: every query attends to mem_len keys")
        self._check_clusters()

    def _check_clusters(self) -> None:
        bounds = (0, *self.cutoffs, self.vocab_size)
        if any(low >= high for low, high in pairwise(bounds)):
            raise InputError(f"cutoffs = {list(self.cutoffs)} must ascend between 0 and vocab_size = {self.vocab_size}")
        if self.tie_projections and len(self.tie_projections) != self.n_clusters:
            raise InputError(f"tie_projections has {len(self.tie_projections)} entries for {self.n_clusters} clusters")
        if self.embed_width // self.div_val ** (self.n_clusters - 1) < 1:
            raise InputError(f"d_embed = {self.embed_width} divided by div_val^{self.n_clusters - 1} leaves no width")

    @property
    def embed_width(self) -> int:
        """Width of the first cluster's embedding."""
        return self.d_model if self.d_embed is None else self.d_embed

    @property
    def n_clusters(self) -> int:
        """Clusters of the adaptive softmax, the head (most frequent words) included; 1 for a full softmax."""
        return len(self.cutoffs) + 1

    @property
    def cluster_sizes(self) -> tuple[int, ...]:
        """Words in each cluster."""
        bounds = (0, *self.cutoffs, self.vocab_size)
        return tuple(high - low for low, high in pairwise(bounds))

    @property
    def cluster_widths(self) -> tuple[int, ...]:
        """Embedding width of each cluster."""
        return tuple(self.embed_width // self.div_val**index for index in range(self.n_clusters))
