"""What each parameter of a kernel model is taken to be before anything is fitted, and how sure of it we are.

Each is positive and fitted on a logarithmic scale, with a normal prior: the value, and the standard deviation of its
logarithm. The priors are judgements, from data sheets and from what is known of the libraries; where rows say nothing of
a parameter (a refit without all rows of a device), it stays at its prior.
"""

from __future__ import annotations

from collections.abc import Mapping

PRIORS: Mapping[str, tuple[float, float]] = {
    "product_fp32": (0.92, 0.03),
    "product_tf32": (0.75, 0.04),
    "product_fp16": (0.75, 0.04),
    "product_fp16_first": (0.75, 0.10),
    "depth": (0.25, 0.30),
    "batched": (0.70, 0.20),
    "odd_fp16": (1.0, 0.50),
    "odd_tf32": (0.70, 0.50),
    "odd_vector": (1.0, 0.30),
    "odd_fp32": (0.75, 0.30),
    "odd_early": (0.90, 0.10),
    "stream": (0.88, 0.03),
    "loss": (0.90, 0.15),
    "score_traffic": (1.5, 0.30),
    "fused_traffic": (0.75, 0.10),
    "issue": (8.0, 0.5),
    "issue_scores": (15.0, 0.5),
    "tail_share": (0.40, 0.30),
    "full_clock_w": (2.6, 0.10),
    "host_op_s": (29.6e-6, 0.08),
    "host_backward": (1.0, 0.30),
    "host_update": (0.16, 0.15),
    "knee": (4.0, 0.30),
    "all_reduce": (0.90, 0.20),
    "all_reduce_traffic": (8.0, 0.40),
    "all_reduce_wait_s": (2e-3, 0.30),
}
