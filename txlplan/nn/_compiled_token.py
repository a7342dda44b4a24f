"""One layer's work on one token of each row, compiled once for its shapes and called for every layer and token.

All shapes and strides are those of the example, of which a ring's windows keep all but their offset; so nothing is checked at
a call. Compiled code is kept on disk by torch (TORCHINDUCTOR_CACHE_DIR).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from txlplan.nn._kept_attention import attend_token, attend_token_fused
from txlplan.nn._layer_weights import Attend, LayerWeights
from txlplan.nn._ring import KeyValueRing

ReadToken = Callable[[LayerWeights, Tensor, Tensor, Tensor, Tensor, Tensor | None, Attend], Tensor]


def attention_to_compile(ring: KeyValueRing) -> Attend:
    """Sums that the compiler fuses where that beats the library's products: for one row, and for narrow numbers."""
    return attend_token_fused if ring.rows == 1 or ring.dtype.itemsize < 4 else attend_token


def compiled_read_token(layer: LayerWeights, x_BD: Tensor, ring: KeyValueRing, r_HSK: Tensor) -> ReadToken:
    """`LayerWeights.read_token` compiled for inputs like these, and a mask.

    Raises what torch raises where it cannot compile: without a C++ compiler on a CPU, for one.
    """
    slots = r_HSK.shape[1] - 1
    ring.make_room(1)
    mask_BS = torch.zeros(ring.rows, slots + 1, dtype=x_BD.dtype, device=x_BD.device)
    example = (layer, x_BD, *ring.window(0, slots, 1), r_HSK, mask_BS, attention_to_compile(ring))
    threads, ahead = {"cpp.threads": torch.get_num_threads()}, {"enable_aot_compile": True}
    with torch.no_grad(), torch._inductor.config.patch(threads), torch._dynamo.config.patch(ahead):
        function = torch.compile(LayerWeights.read_token, fullgraph=True, dynamic=False)
        compiled: ReadToken = function.aot_compile((example, {}))
    compiled.disable_guard_check()  # type: ignore[attr-defined]
    return compiled
