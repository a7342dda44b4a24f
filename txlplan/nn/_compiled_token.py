"""One layer's work on one token of each row, compiled once for its shapes and called for every layer and token.

All shapes and strides are those of the example, of which a ring's windows keep all but their offset; so nothing is checked at
a call. Compiled code is kept on disk by torch (TORCHINDUCTOR_CACHE_DIR).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from txlplan.nn._kept_attention import attend_token, attend_token_fused
from txlplan.nn._layer_weights import Attend, LayerWeights
from txlplan.nn._ring import KeyValueRing

ReadToken = Callable[[LayerWeights, Tensor, Tensor, Tensor, Tensor, Tensor | None, Attend], Tensor]


def attention_to_compile(ring: KeyValueRing) -> Attend:
    """Sums that the compiler fuses where that beats the library's products: one row, narrow numbers."""
    return attend_token_fused if ring.rows == 1 or ring.dtype.itemsize < 4 else attend_token


def compiled_read_token(layer: LayerWeights, x_BD: Tensor, ring: KeyValueRing, r_HSK: Tensor) -> ReadToken:
    """`LayerWeights.read_token` compiled for inputs like these, and a mask.

    Raises what torch raises where it cannot compile: without a C++ compiler on a CPU, for one.
    """
    slots = r_HSK.shape[1] - 1
    ring.make_room(1)
    mask_BS = torch.zeros(ring.rows, slots + 1, dtype=x_BD.dtype, device=x_BD.device)
    example = (layer, x_BD, *ring.windows(slots, 1)[0], r_HSK, mask_BS, attention_to_compile(ring))
    compiled: ReadToken = _compiled_ahead(LayerWeights.read_token, example)
    return compiled


def _compiled_ahead(function: Callable[..., Tensor], example: tuple[Any, Tensor, *tuple[Any, ...]]) -> Any:
    """For arguments like the example, whose second one tells the device. On a CPU what calls the loops is compiled too."""
    settings = {"cpp.threads": torch.get_num_threads(), "cpp_wrapper": not example[1].is_cuda}
    with torch.no_grad(), torch._inductor.config.patch(settings), torch._dynamo.config.patch(enable_aot_compile=True):
        compiled = torch.compile(function, fullgraph=True, dynamic=False).aot_compile((example, {}))
    compiled.disable_guard_check()
    return compiled
