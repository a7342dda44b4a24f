"""Transformer-XL in float64 NumPy, written from the equations of the paper with loops over positions: the tests' oracle.

Dai et al. 2019 (arXiv:1901.02860), section 3.3. Query i of a segment of T tokens stands at position M + i of the context
(memory, then segment); key j at position j; their distance is M + i - j:

    A_ij = q_i·k_j + q_i·(W_R R_{i-j}) + u·k_j + v·(W_R R_{i-j})

The adaptive input and softmax follow Baevski & Auli 2019 and Grave et al. 2017. `P` are the parameters by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from txlplan.model import ModelConfig

Parameters = Mapping[str, np.ndarray]


def forward(config: ModelConfig, P: Parameters, tokens: np.ndarray, memory: np.ndarray, valid: np.ndarray):
    """Hidden states [B, T, D] and new memory [L, B, M, D]; tokens [B, T], memory [L, B, M, D], valid [B]."""
    batch = [_sequence(config, P, tokens[b], memory[:, b], int(valid[b])) for b in range(len(tokens))]
    return np.stack([hidden for hidden, _ in batch]), np.stack([new for _, new in batch], axis=1)


def log_probabilities(config: ModelConfig, P: Parameters, hidden: np.ndarray) -> np.ndarray:
    """[V] of one hidden state [D]."""
    bounds = [0, *config.cutoffs, config.vocab_size]
    head = [_logit(config, P, hidden, word, 0) for word in range(bounds[1])]
    for further in range(config.n_clusters - 1):
        vector = P["softmax.cluster_weight"][further]
        head.append(vector @ _narrow(config, P, hidden, 0) + P["softmax.cluster_bias"][further])
    head = _log_softmax(np.array(head))
    result = list(head[: bounds[1]])
    for cluster in range(1, config.n_clusters):
        words = range(bounds[cluster], bounds[cluster + 1])
        tail = _log_softmax(np.array([_logit(config, P, hidden, word, cluster) for word in words]))
        result += list(head[bounds[1] + cluster - 1] + tail)
    return np.array(result)


def mean_nll(config: ModelConfig, P: Parameters, hidden: np.ndarray, targets: np.ndarray) -> float:
    """Mean over all positions, nats."""
    losses = [
        -log_probabilities(config, P, h)[t]
        for row, wanted in zip(hidden, targets, strict=True)
        for h, t in zip(row, wanted, strict=True)
    ]
    return float(np.mean(losses))


def _sequence(config: ModelConfig, P: Parameters, tokens: np.ndarray, memory: np.ndarray, valid: int):
    x = np.stack([_embed(config, P, int(token)) for token in tokens])
    new_memory = []
    for layer in range(config.n_layer):
        everything = np.concatenate([memory[layer], x])
        new_memory.append(everything[len(everything) - config.mem_len :])
        x = _feed_forward(config, P, f"layers.{layer}.feed_forward.", _attend(config, P, layer, x, memory[layer], valid))
    return x, np.stack(new_memory)


def _attend(config: ModelConfig, P: Parameters, layer: int, x: np.ndarray, memory: np.ndarray, valid: int) -> np.ndarray:
    name, H, K, M = f"layers.{layer}.attention.", config.n_head, config.d_head, len(memory)
    W_q, W_k, W_v = P[name + "qkv.weight"].reshape(3, H, K, config.d_model)
    W_r = P[name + "position.weight"].reshape(H, K, config.d_model)
    u, v = (P[(name if config.untie_r else "") + f"{kind}_bias"] for kind in ("content", "position"))
    context = np.concatenate([memory, x])
    source = np.stack([_norm(P, name, row) for row in context]) if config.norm == "pre" else context
    out = np.zeros_like(x)
    for i in range(len(x)):
        heads = []
        for h in range(H):
            q = W_q[h] @ source[M + i]
            seen, scores = [], []
            for j in range(M + i + 1):
                distance = M + i - j
                if j < M - valid or (config.same_length and distance >= config.mem_len):
                    continue
                k, r = W_k[h] @ source[j], W_r[h] @ _sinusoid(config, distance)
                seen.append(j)
                scores.append((q @ k + q @ r + u[h] @ k + v[h] @ r) / math.sqrt(K))
            weights = np.exp(_log_softmax(np.array(scores)))
            heads.append(sum(w * (W_v[h] @ source[j]) for w, j in zip(weights, seen, strict=True)))
        out[i] = x[i] + P[name + "output.weight"] @ np.concatenate(heads)
    return out if config.norm == "pre" else np.stack([_norm(P, name, row) for row in out])


def _feed_forward(config: ModelConfig, P: Parameters, name: str, x: np.ndarray) -> np.ndarray:
    rows = []
    for row in x:
        source = _norm(P, name, row) if config.norm == "pre" else row
        inner = P[name + "inner.weight"] @ source + P[name + "inner.bias"]
        if config.activation == "relu":
            inner = np.maximum(inner, 0)
        else:
            inner = np.array([z * (1 + math.erf(z / math.sqrt(2))) / 2 for z in inner])
        row = row + P[name + "outer.weight"] @ inner + P[name + "outer.bias"]
        rows.append(row if config.norm == "pre" else _norm(P, name, row))
    return np.stack(rows)


def _norm(P: Parameters, name: str, row: np.ndarray) -> np.ndarray:
    centred = row - row.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * P[name + "norm.weight"] + P[name + "norm.bias"]


def _sinusoid(config: ModelConfig, distance: int) -> np.ndarray:
    if config.clamp_len is not None:
        distance = min(distance, config.clamp_len)
    angles = np.array([distance / 10_000 ** (2 * k / config.d_model) for k in range(config.d_model // 2)])
    return np.concatenate([np.sin(angles), np.cos(angles)])


def _cluster_of(config: ModelConfig, word: int) -> int:
    return sum(word >= cutoff for cutoff in config.cutoffs)


def _vector(config: ModelConfig, P: Parameters, word: int, prefix: str) -> np.ndarray:
    """A word's row in the tables of `embedding.` or `softmax.`."""
    if config.div_val == 1:
        return P[f"{prefix}tables.0"][word]
    cluster = _cluster_of(config, word)
    return P[f"{prefix}tables.{cluster}"][word - [0, *config.cutoffs][cluster]]


def _embed(config: ModelConfig, P: Parameters, word: int) -> np.ndarray:
    vector = _vector(config, P, word, "embedding.")
    projection = P.get(f"embedding.projections.{0 if config.div_val == 1 else _cluster_of(config, word)}")
    return (vector if projection is None else projection @ vector) * math.sqrt(config.d_model)


def _narrow(config: ModelConfig, P: Parameters, hidden: np.ndarray, cluster: int) -> np.ndarray:
    """Hidden state in the width of a cluster's embedding, through its own or the input's projection."""
    tied = bool(config.tie_projections) and config.tie_projections[cluster]
    if tied:
        projection = P.get(f"embedding.projections.{0 if config.div_val == 1 else cluster}")
    else:
        projection = P.get(f"softmax.projections.{cluster}")
    return hidden if projection is None else projection.T @ hidden


def _logit(config: ModelConfig, P: Parameters, hidden: np.ndarray, word: int, cluster: int) -> float:
    vector = _vector(config, P, word, "embedding." if config.tie_weights else "softmax.")
    first = 0 if config.div_val == 1 else [0, *config.cutoffs][cluster]
    bias = P[f"softmax.biases.{0 if config.div_val == 1 else cluster}"][word - first]
    return float(vector @ _narrow(config, P, hidden, cluster) + bias)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())
