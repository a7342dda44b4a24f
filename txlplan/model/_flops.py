"""Floating-point operations of a forward pass, from the configuration alone."""

from __future__ import annotations

from txlplan.model._config import ModelConfig
from txlplan.model._parameters import embedding_shapes, has_projections


def forward_flops_per_token(config: ModelConfig, *, batch: int = 1) -> dict[str, float]:
    """FLOPs of the matrix products of one forward pass with full memory, per predicted token, by group.

    A product of [m, k] and [k, n] takes 2·m·n·k; softmax, norms and other elementwise work are left out (about 1 % of a
    layer's arithmetic, though not of its time). Derived from the equations of Dai et al. 2019 (arXiv:1901.02860, §3.3) as
    their released code runs them. With S = mem_len + tgt_len keys for T = tgt_len queries, per layer and token:

    - projections: q, k and v of segment *and* memory 6·D·HK·S/T, output 2·HK·D;
    - positions: W·R once for the `batch` sequences of a micro-batch, 2·D·HK·S/(T·batch);
    - attention: content scores, position scores and the weighted sum of values, 2·HK·S each (masked keys included);
    - feed-forward: 4·D·F.

    The embedding's projections run for every cluster and token, so that shapes stay static. The softmax is the head
    cluster's alone: a token of a further cluster c adds 2·E_c·(D + words of c).
    """
    d_model, heads_width, queries = config.d_model, config.n_head * config.d_head, config.tgt_len
    keys = config.mem_len + queries
    head_words = config.cluster_sizes[0] + config.n_clusters - 1
    projected = sum(2 * shape[0] * shape[1] for name, shape in embedding_shapes(config).items() if "projections" in name)
    return {
        "embedding": float(projected),
        "projections": config.n_layer * (6 * d_model * heads_width * keys / queries + 2 * d_model * heads_width),
        "positions": config.n_layer * 2 * d_model * heads_width * keys / (queries * batch),
        "attention": config.n_layer * 6.0 * heads_width * keys,
        "feed-forward": config.n_layer * 4.0 * d_model * config.d_inner,
        "softmax": 2.0 * config.embed_width * (head_words + (d_model if has_projections(config) else 0)),
    }
