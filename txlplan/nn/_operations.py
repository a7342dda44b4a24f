"""Operations of our own as torch's, so that they are traced, and differentiated by whoever calls them.

Not by `custom_op`, whose operations load torch's compiler, and take as long around each call as a small tensor's dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def define(*operations: tuple[str, Callable[..., Any], Callable[..., Any]]) -> torch.library.Library:
    """Define each as `torch.ops.txlplan.NAME` for as long as the result is kept.

    By its signature, `NAME(…) -> …`, what computes it on a CPU, and what makes results like its own and leaves them empty.
    """
    library = torch.library.Library("txlplan", "FRAGMENT")
    for signature, compute, like in operations:
        name = signature.partition("(")[0]
        library.define(signature)
        library.impl(name, compute, "CPU")
        torch.library.register_fake(f"txlplan::{name}", like, lib=library)
    return library
