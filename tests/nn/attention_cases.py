"""Cases of attention by code of our own, and what comes of them by it and by tiles of torch's products."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import strategies as st
from torch import Tensor

from txlplan.model._tiles import VECTOR
from txlplan.nn._attention_code import CompiledScores
from txlplan.nn._positions import key_mask
from txlplan.nn._tiled_scores import TiledScores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    B: int
    T: int
    M: int
    H: int
    K: int
    window: bool = False
    dropped: bool = False
    again: bool = False
    valid_each: bool = False
    heads_first: bool = False
    """Keys, values and distances lie in memory as inference keeps them."""
    longer: int = 1
    """Times as long as drawn are queries."""


def outcomes(case: Case, dtype: torch.dtype, *, tiled: bool = False, rounded: bool = False) -> dict[str, Tensor]:
    """Weighted values and every gradient, from inputs that are the same in each dtype. `rounded`: to bf16, but biases."""
    random = torch.Generator().manual_seed(case.T + 7 * case.K)
    B, T, H, K, S = case.B, case.T, case.H, case.K, case.M + case.T

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    def new(*shape: int) -> Tensor:
        drawn_here = drawn(*shape)
        return (drawn_here.bfloat16() if rounded else drawn_here).to(dtype)

    wide = torch.promote_types(dtype, torch.float32)
    q, kv, r, of_mixed = new(B, H, T, K), new(2, B, H, S, K), new(H, S, K), new(B, H, T, K)
    q = q * case.longer
    u, v = drawn(H, K).to(wide), drawn(H, K).to(wide)
    valid = torch.randint(0, case.M + 1, (B,) if case.valid_each else (), generator=random)
    masked = key_mask(T, case.M, valid, max(1, case.M) if case.window else None)
    keep = (torch.rand(B, H, T, S, generator=random) > 0.3).to(torch.int8) if case.dropped else None
    kept_scale = 1 / 0.7 if case.dropped else 1.0
    if tiled:
        padded = torch.nn.functional.pad(r, (0, 0, 0, VECTOR))
        whole = TiledScores(q_BHTK=q, kv_2BHSK=kv, r_HRK=padded, u_HK=u, v_HK=v, keep_BHTS=keep, kept_scale=kept_scale)
        mixed, probabilities = whole.mix(masked, keep_probabilities=not case.again)
        of = whole.gradients(of_mixed, masked if case.again else probabilities)
        of_distances = of.r_HRK[:, :S]
        return {"mixed": mixed, "q": of.q_BHTK, "kv": of.kv_2BHSK, "r": of_distances, "u": of.u_HK, "v": of.v_HK}
    kv_BS2HK, r_SHK = kv.permute(1, 3, 0, 2, 4), r.transpose(0, 1)
    memory = kv.transpose(2, 3)[:, :, : case.M] if case.heads_first else kv_BS2HK[:, : case.M].contiguous().unbind(2)
    scores = CompiledScores(
        qkv_BT3HK=torch.cat([q.transpose(1, 2).unsqueeze(2), kv_BS2HK[:, case.M :]], dim=2),
        k_BMHK=memory[0],
        v_BMHK=memory[1],
        r_SHK=r_SHK if case.heads_first else r_SHK.contiguous(),
        u_HK=u,
        v_HK=v,
        keep_BHTS=keep,
        kept_scale=kept_scale,
    )
    mixed, kept = scores.mix(masked, keep_probabilities=not case.again)
    found = scores.gradients(of_mixed.transpose(1, 2), masked if case.again else kept)
    of_kv = torch.cat([found.kv_BM2HK, found.qkv_BT3HK[:, :, 1:]], dim=1).permute(2, 0, 3, 1, 4)
    of_q, of_r = found.qkv_BT3HK[:, :, 0].transpose(1, 2), found.r_SHK.transpose(0, 1)
    return {"mixed": mixed.transpose(1, 2), "q": of_q, "kv": of_kv, "r": of_r, "u": found.u_HK, "v": found.v_HK}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    memory = draw(st.sampled_from([0, 1, 5, 64, 200, 450]))
    return Case(
        B=draw(st.integers(1, 3)),
        T=draw(st.sampled_from([1, 2, 7, 63, 64, 65, 130, 192])),
        M=memory,
        H=draw(st.integers(1, 5)),
        K=draw(st.sampled_from([1, 3, 6, 16, 17, 41, 64, 80])),
        window=draw(st.booleans()),
        dropped=draw(st.booleans()),
        again=draw(st.booleans()),
        valid_each=draw(st.booleans()),
        heads_first=draw(st.booleans()),
    )
