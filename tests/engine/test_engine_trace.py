from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from txlplan.engine.trace import trace_flops
from txlplan.model import models, parameter_count
from txlplan.nn import TransformerXL


def test_products_counted_by_hand(tiny_model):
    """2mnk for each product: QKV over T+M keys, position, scores twice, values, output, feed-forward, logits."""
    B, T, S, D, F, V, L = 3, 8, 16, 16, 32, 256, 2
    layer = 2 * (B * S * D * 3 * D + S * D * D + 3 * B * T * S * D + B * T * D * D + 2 * B * T * D * F)
    traced = trace_flops(tiny_model, B)
    assert traced.forward == L * layer + 2 * B * T * D * V
    assert traced.forward == sum(traced.forward_by_op.values())
    assert traced.backward == sum(traced.backward_by_op.values())
    assert trace_flops(tiny_model, B, "score").forward == traced.forward
    assert trace_flops(tiny_model, B, "score").backward == 0


def test_activation_checkpointing_recomputes_the_layers(tiny_model):
    plain, again = (trace_flops(tiny_model, 2, activation_checkpointing=how) for how in ("none", "full"))
    logits = 2 * 2 * 8 * 16 * 256
    assert again.forward == plain.forward
    assert again.backward - plain.backward == pytest.approx(plain.forward - logits, rel=0.1)


def test_the_fast_path_leaves_out_queries_of_the_memory_and_keys_that_no_query_of_a_block_sees(tiny_model):
    config = dataclasses.replace(tiny_model, tgt_len=300, mem_len=40)
    B, T, M, D, F, V, L = 3, 300, 40, 16, 32, 256, 2
    seen = 150 * (M + 150) + 150 * (M + 300)
    layer = 2 * (
        B * T * D * D + B * (M + T) * 2 * D * D + (M + T) * D * D + B * (3 * seen + T) * D + B * T * D * D + 2 * B * T * D * F
    )
    traced = trace_flops(config, B, attention="fast")
    assert traced.forward == L * layer + 2 * B * T * D * V
    assert traced.forward < 0.9 * trace_flops(config, B).forward


def test_adaptive_softmax_equals_a_real_run(tiny_model):
    config = dataclasses.replace(tiny_model, vocab_size=300, cutoffs=(100, 200), div_val=2)
    torch.manual_seed(1)
    tokens = torch.randint(0, 300, (2, 8))
    counts = [int(((tokens >= low) & (tokens < low + 100)).sum()) for low in (100, 200)]
    model = TransformerXL(config)
    with FlopCounterMode(display=False) as counter:
        hidden, _ = model(tokens, model.initial_memory(2), torch.tensor(8))
        model.nll(hidden, tokens)
    assert trace_flops(config, 2, tail_targets=counts).forward == counter.get_total_flops()
    with pytest.raises(ValueError, match="2 further clusters"):
        trace_flops(config, 2, tail_targets=[1])


def test_a_large_model_is_traced_without_its_memory():
    config = models.get("nvidia-wt103-large")
    assert trace_flops(config, 16).parameters == parameter_count(config)
