"""What plans that are costed together agree in, and what the devices of one layer say to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from txlplan.choices import Checkpointing
from txlplan.cost._build import Settings
from txlplan.cost._mesh import context_gather_s, tensor_all_reduce_s
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._parts import Parts
from txlplan.cost._plans import IntArray
from txlplan.cost._stages import Stage
from txlplan.hardware import Cluster

_STATISTICS_BYTES = 12.0
"""Of a token and cluster of words: its largest logit, the sum of exponentials and the logit of the target, all-reduced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Precision, tensor and context parallelism (in `settings`), checkpointing, threads, and processes on a CPU."""

    settings: Settings
    kind: Checkpointing
    threads: int | None
    ranks: int
    """Processes that share one device; 1 beside CPUs."""
    cluster: Cluster

    @property
    def training(self) -> bool:
        """Whether there is a backward."""
        return self.settings.task == "train"

    def tensor_s(self, parts: Parts, column: IntArray, stage: Stage, repeated: FloatArray) -> FloatArray:
        """All-reduces of activations of one micro-batch under tensor parallelism, [candidates].

        Two of B·T·D a layer in forward (after attention and after the feed-forward layer) and two in backward
        (arXiv:1909.08053, §3), two more where a whole layer runs again; one for the embedding, whose words are shared, and one
        for the gradient of the loss's input; and statistics of the softmax. The recurrent memory needs no gradients.
        """
        if self.settings.tensor_parallel == 1:
            return np.zeros(column.shape)
        model, numbers = self.settings.model, self.settings.numbers
        rows = self._rows(parts)
        states_s = tensor_all_reduce_s(rows * model.d_model * numbers.compute, self.settings.tensor_parallel, self.cluster)
        statistics = rows * _STATISTICS_BYTES * model.n_clusters
        statistics_s = tensor_all_reduce_s(statistics, self.settings.tensor_parallel, self.cluster)
        ways = 2.0 if self.training else 1.0
        layers = 2 * ways * stage.layers + 2 * repeated
        ends = stage.first + (ways - 1) * stage.last
        return (layers + ends) * states_s[column] + stage.last * statistics_s[column]

    def context_s(self, parts: Parts, column: IntArray, stage: Stage, repeated: FloatArray) -> FloatArray:
        """Gathering of keys and values of one micro-batch under context parallelism, [candidates].

        Each device projects its share of the positions of segment and memory; the keys and values of all of them are gathered
        for every layer, 2 · B·S·W elements, and their gradients are reduced and scattered in backward.
        """
        if self.settings.context_parallel == 1:
            return np.zeros(column.shape)
        model = self.settings.sharded
        keys = model.mem_len + model.tgt_len
        payload = 2 * parts.micro_batch * keys * model.n_head * model.d_head * self.settings.numbers.compute
        gather_s = context_gather_s(payload, self.settings.context_parallel, self.settings.tensor_parallel, self.cluster)
        return ((2.0 if self.training else 1.0) * stage.layers + repeated) * gather_s[column]

    def _rows(self, parts: Parts) -> FloatArray:
        """Tokens of a micro-batch on one device, [micro-batches]."""
        tokens = 1 if self.settings.task == "generate" else self.settings.model.tgt_len
        return parts.micro_batch * (tokens / self.settings.context_parallel)
