"""Writing down the operations of one part of a step: forward as the module runs them, backward in the reverse order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from txlplan.cost._numbers import Numbers
from txlplan.cost._op_stream import Figure, Op, Phase
from txlplan.hardware._stack import OpKind
from txlplan.hardware._stack import Phase as Measured


class Section:
    """Operations that repeat together. In training each description adds its backward; otherwise nothing is kept.

    `own_loss`: a table of several clusters is split once, and logits of very many words are computed a chunk of words at a
    time; else each cluster is a slice of the table, and all its words are computed together (the published loss, whose
    stacks' fitted figures also leave out that a product's gradients of input and weight are alive together). `gpu_loss`:
    words' probabilities are computed as on a GPU, in chunks as large. `own_dropout`: code of our own drops, see txlplan.nn:
    `_dropout_code`. `own_linear`: it multiplies by weights in fp32 as they are, see `_linear_code`, and `own_norm`: it adds a
    residual and norms it, in both precisions, see `_norm_code`.
    `base`: of them, what is alive throughout: where nothing is kept for backward, inputs that an operation's caller holds.
    `keeps_casts`: autocast's copies of weights are accounted for where autograd keeps them; else they are counted elsewhere.
    `cached` bytes of them nothing but autocast holds, until the forward pass ends.
    `held` bytes are what the module's local variables keep alive around every operation described meanwhile, and `dispatch` is
    what one of those costs the host (`Op.dispatch`).
    """

    def __init__(
        self,
        name: str,
        numbers: Numbers,
        *,
        repeat: float = 1.0,
        training: bool,
        fused_dropout: bool,
        casts_weights: bool = True,
        keeps_casts: bool = False,
        own_loss: bool = False,
        gpu_loss: bool = False,
        own_dropout: bool = False,
        own_linear: bool = False,
        own_norm: bool = False,
    ) -> None:
        self.numbers = numbers
        self.own_loss = own_loss
        self.gpu_loss = gpu_loss
        self.training = training
        self.held: Figure = 0.0
        self.dispatch: Figure = 1.0
        self.cached = 0.0
        self.base: Figure = 0.0
        self._name = name
        self._repeat = repeat
        self._fused_dropout = fused_dropout
        self.own_dropout = own_dropout
        self.own_linear = own_linear
        self.own_norm = own_norm
        self.casts_weights = casts_weights
        self._keeps_casts = keeps_casts
        self._forward: list[Op] = []
        self._backward: list[list[Op]] = []
        self._kept = ""

    @property
    def shared_bytes(self) -> float:
        """Of an element of a weight's gradient that waits for another product by the same weight: autocast's copy is one."""
        return self.numbers.compute if self._keeps_casts else self.numbers.wide

    def forward(self) -> list[Op]:
        """What was described, in the order in which it runs."""
        return list(self._forward)

    def backward(self) -> list[Op]:
        """Its backward, in the order in which that runs."""
        return [op for ops in reversed(self._backward) for op in ops]

    def run(
        self,
        name: str,
        group: str,
        kind: OpKind = "elementwise",
        *,
        read: Figure,
        written: Figure,
        kept: Figure = 0.0,
        around: Figure | None = None,
        launches: Figure = 1.0,
        dtype: str = "fp32",
        draws: Figure = 0.0,
    ) -> None:
        """A forward operation that reads and writes so many bytes and keeps `kept` of them for backward.

        `around`: bytes alive beside what is kept; by default what it writes and does not keep. Where nothing is trained, what
        would be kept is alive around it and no longer.
        """
        unkept = 0.0 if self.training else kept
        beside = (written - kept if around is None else around) + unkept
        self._forward.append(
            Op(
                name=name,
                group=group,
                section=self._name,
                kind=kind,
                phase="forward",
                dtype=dtype,
                bytes_moved=read + written,
                saved_bytes=kept if self.training else 0.0,
                transient_bytes=self.held + _positive(beside),
                launches=launches,
                dispatch=self.dispatch,
                repeat=self._repeat,
                draws=draws,
            )
        )
        if self.training:
            self._kept = name
            self._backward.append([self._returned(name, group, kept)] if _nonzero(kept) else [])

    def back(
        self,
        name: str,
        group: str,
        kind: OpKind = "elementwise",
        *,
        read: Figure,
        written: Figure,
        around: Figure | None = None,
        launches: Figure = 1.0,
        dtype: str = "fp32",
        gradient: Figure = 0.0,
        left: Figure = 0.0,
        taken: Figure = 0.0,
    ) -> None:
        """An operation of the backward of what was described last; by default its gradients in and out are alive around it.

        `left` bytes of gradients wait for a later operation of the backward, and `taken` are those that waited for this one.
        """
        if not self.training:
            return
        self._backward_op(
            Op(
                name=f"{name} backward",
                group=group,
                section=f"{self._name} backward",
                kind=kind,
                phase="backward",
                dtype=dtype,
                bytes_moved=read + written,
                transient_bytes=2 * written if around is None else around,
                saved_bytes=left,
                gradient_bytes=gradient,
                launches=launches,
                dispatch=self.dispatch,
                repeat=self._repeat,
            )
        )
        if _nonzero(taken):
            self._backward_op(self._returned(f"{name} gradients", group, taken))

    def product(
        self,
        name: str,
        group: str,
        kind: OpKind = "gemm",
        *,
        m: Figure,
        n: Figure,
        k: Figure,
        count: Figure = 1.0,
        kept: Figure = 0.0,
        launches: Figure = 1.0,
    ) -> None:
        """`count` products [m, k] × [k, n] in so many calls, whose results are not alive together."""
        written = count * m * n * self.numbers.compute
        op = self._product(name, group, kind, m, n, k, count, "forward")
        kept_bytes, around = (kept, written / launches) if self.training else (0.0, kept + written / launches)
        self._forward.append(replace(op, saved_bytes=kept_bytes, transient_bytes=self.held + around, launches=launches))
        if self.training:
            self._kept = name
            self._backward.append([self._returned(name, group, kept)] if _nonzero(kept) else [])

    def gradient(
        self,
        name: str,
        group: str,
        kind: OpKind = "gemm",
        *,
        m: Figure,
        n: Figure,
        k: Figure,
        count: Figure = 1.0,
        around: Figure,
        gradient: Figure = 0.0,
        left: Figure = 0.0,
        launches: Figure = 1.0,
        measured_as: Measured | None = None,
    ) -> None:
        """One of the two gradients of the products described last, given by the shape of those. `left`: as of `back`.

        It has as many FLOPs and moves the same tensors. `measured_as`: where it is not the gradient of the input.
        """
        if self.training:
            op = self._product(f"{name} backward", group, kind, m, n, k, count, "backward")
            op = replace(op, transient_bytes=around, gradient_bytes=gradient, saved_bytes=left, launches=launches)
            self._backward_op(replace(op, measured_as=measured_as))

    def attention(
        self,
        name: str,
        group: str,
        *,
        m: Figure,
        n: Figure,
        k: Figure,
        count: Figure,
        operands: Figure,
        kept: Figure,
        products: tuple[int, int] = (2, 5),
        around: Figure | None = None,
        launches: Figure = 1.0,
        kind: OpKind = "attention",
    ) -> None:
        """Scores of `count` products [m, k] × [k, n], their softmax, and values [n, k] weighted by it, in one kernel each way.

        No score is written but what is `kept`, beside the result, or what the softmax is computed again with: backward then
        does so, and gives the gradients of all that was read, `operands` bytes. `products`: how many there are, forward and
        backward. `around`: bytes alive in backward beside what is kept.
        """
        op = self._product(name, group, kind, m, n, k, count, "forward")
        op = replace(
            op, flops=products[0] * op.flops, bytes_moved=operands + kept, transient_bytes=self.held, launches=launches
        )
        if not self.training:
            self._forward.append(replace(op, transient_bytes=self.held + kept))
            return
        self._forward.append(replace(op, saved_bytes=kept))
        self._kept = name
        self._backward.append([self._returned(name, group, kept)])
        op = self._product(f"{name} backward", group, kind, m, n, k, count, "backward")
        beside = operands + kept if around is None else around
        flops, moved = products[1] * op.flops, 2 * operands + 2 * kept
        self._backward_op(replace(op, flops=flops, bytes_moved=moved, transient_bytes=beside, launches=launches))

    def _product(self, name: str, group: str, kind: OpKind, m: Figure, n: Figure, k: Figure, count: Figure, phase: Phase) -> Op:
        weight_size = self.numbers.wide if kind == "linear" else self.numbers.compute
        return Op(
            name=name,
            group=group,
            section=self._name if phase == "forward" else f"{self._name} backward",
            kind=kind,
            phase=phase,
            dtype=self.numbers.dtype,
            m=m,
            n=n,
            k=k,
            flops=2.0 * count * m * n * k,
            bytes_moved=count * (m * k + m * n) * self.numbers.compute + count * k * n * weight_size,
            dispatch=self.dispatch,
            repeat=self._repeat,
        )

    def linear(
        self,
        name: str,
        group: str,
        *,
        rows: Figure,
        n: float,
        k: float,
        kept: Figure,
        bias: bool = False,
        input_gradient: bool = True,
        pieces: Figure = 1.0,
        waiting: float = 0.0,
        around: Figure = 0.0,
        autocast: bool = True,
        cast_before: bool = False,
    ) -> None:
        """A linear layer [rows, k] → [rows, n] and its backward: gradients of the input, the weight, and the bias.

        `pieces`: in how many calls, whose results are not alive together. `waiting`: bytes of the weight's
        gradient that are no parameter's yet, but wait to be joined or added to another. `around`: bytes
        alive in backward beside the gradients of output and input. `autocast`: casts the
        weight, and so holds the copy until the forward pass ends; else the module does. `cast_before`: that copy is there.
        """
        out_bytes, parameters = rows * n * self.numbers.compute / pieces, n * k + (n if bias else 0.0)
        in_bytes = rows * k * self.numbers.compute if input_gradient else 0.0
        beside = in_bytes if self.own_loss else 0.0
        gradient, left = 0.0 if cast_before else parameters * self.numbers.wide - waiting, waiting
        kind: OpKind = "linear" if self.own_linear else "gemm"
        if not (cast_before or self.own_linear):
            copy, needed = f"{name} {AUTOCAST_COPY if autocast else 'weight narrowed'}", input_gradient or not autocast
            if self.weight_cast(copy, parameters, n * k if needed else 0.0, beside=beside, gradient=gradient, left=left):
                beside, gradient, left = beside + parameters * self.numbers.compute, 0.0, 0.0
        self.product(name, group, kind, m=rows, n=n, k=k, kept=kept, launches=pieces)
        if input_gradient:
            self.gradient(name, group, kind, m=rows, n=n, k=k, around=around + out_bytes + in_bytes, launches=pieces)
        both = around + out_bytes + beside
        self.gradient(
            name,
            group,
            kind,
            m=rows,
            n=n,
            k=k,
            around=both,
            gradient=gradient,
            left=left,
            launches=pieces,
            measured_as="weights",
        )
        if bias:
            size = n * self.numbers.compute
            launches = 2 if self.own_linear else 1  # which widens it, too; autocast's copy of the bias is the weight's
            self.back(
                f"{name} bias", group, launches=launches, read=out_bytes, written=size, around=both, dtype=self.numbers.narrow
            )

    def dropout(self, name: str, group: str, *, elements: Figure, size: float, rate: float, kept_output: bool = False) -> None:
        """Dropout with a mask of bytes: one fused kernel on a GPU; on a CPU the mask is drawn first, or, by code of our own, in
        the same pass and again in backward.

        Nothing where the rate is 0 or the model is not training. `kept_output`: what follows saves the result, and does
        not save the input.
        """
        if rate == 0 or not self.training:
            return
        moved = elements * size
        kept = moved if kept_output else 0.0
        if self._fused_dropout:
            self.run(name, group, read=moved, written=moved + elements, kept=elements + kept)
            self.back(name, group, read=moved + elements, written=moved)
            return
        dtype = self._dtype(size)
        if self.own_dropout:
            self.run(name, group, "dropout", read=moved, written=moved, kept=kept, launches=SEEDED, dtype=dtype)
            self.back(name, group, "dropout", read=moved, written=moved, dtype=dtype)
            return
        self.mask(name, group, elements=elements)
        read, written = masked(elements, size)
        around = moved - kept
        self.run(name, group, read=read, written=written, around=around, kept=kept, launches=MASKED_BY, dtype=dtype)
        self.back(name, group, read=read, written=written, around=2 * moved, launches=MASKED_BY, dtype=dtype)

    def dropout_of_constant(self, name: str, group: str, *, elements: Figure, size: float) -> None:
        """Dropout of what needs no gradient: nothing is kept."""
        if self._fused_dropout:
            moved = 3 * elements * size
            self.run(name, group, launches=3, read=moved, written=moved)
        elif self.own_dropout:
            moved = elements * size
            self.run(name, group, "dropout", read=moved, written=moved, launches=SEEDED, dtype=self._dtype(size))
        else:
            self.mask(name, group, elements=elements, keeps=False)
            read, written = masked(elements, size)
            self.run(name, group, launches=MASKED_BY, read=read, written=written, around=elements * size)

    def _dtype(self, size: float) -> str:
        """Of elements of so many bytes."""
        return self.numbers.narrow if size == self.numbers.compute else "fp32"

    def relu_dropout(self, name: str, group: str, *, moved: Figure) -> None:
        """By code of our own, dropout of what is above 0 in one pass: the result is kept, which tells backward both."""
        dtype = self.numbers.narrow
        self.run(name, group, "dropout", read=moved, written=moved, kept=moved, around=moved, launches=SEEDED, dtype=dtype)
        self.back(name, group, read=2 * moved, written=moved, dtype=dtype)

    def mask(self, name: str, group: str, *, elements: Figure, keeps: bool = True) -> None:
        """Draw which elements dropout keeps: two random bytes each, compared in place with a threshold, and narrowed to a byte
        each, which backward wants where it `keeps` them."""
        drawn, kept = _DRAWN_BYTES * elements, elements if keeps else 0.0 * elements
        self.run(
            f"{name} mask",
            group,
            "random",
            read=2 * drawn,
            written=2 * drawn + elements,
            around=drawn,
            kept=kept,
            launches=3,
            draws=elements,
        )

    def narrow(self, name: str, *, elements: Figure, gradient: bool = True) -> None:
        """A residual cast for the product that keeps it; nothing where it is in the precision of products."""
        if self.numbers.narrows:
            self.cast(name, elements=elements, kept=elements * self.numbers.compute, gradient=gradient)

    def cast(self, name: str, *, elements: Figure, kept: Figure = 0.0, gradient: bool = True) -> None:
        """Wide to compute precision under autocast, and the gradient back; nothing where both are the same."""
        if not self.numbers.cast:
            return
        wide, narrow = elements * self.numbers.wide, elements * self.numbers.compute
        self.run(name, CASTS, "copy", read=wide, written=narrow, kept=kept, dtype=self.numbers.narrow)
        if gradient:
            self.back(name, CASTS, "copy", read=narrow, written=wide, dtype=self.numbers.narrow)

    def weight_cast(
        self, name: str, parameters: float, kept: float, *, beside: Figure, gradient: float, left: float = 0.0
    ) -> bool:
        """Autocast's copy of a weight, made once a micro-batch, and the gradient's way back; whether that is where the gradient
        is widened.

        Of its elements, `kept` are needed for the gradient of the product's input, and no longer. `beside`: bytes alive while
        the gradient is widened, which leaves `gradient` and `left` bytes as of `back`.
        """
        if not (self.numbers.cast and self.casts_weights):
            return False
        wide, narrow = parameters * self.numbers.wide, parameters * self.numbers.compute
        dtype, kept_bytes = self.numbers.narrow, kept * self.numbers.compute if self._keeps_casts else 0.0
        self.cached += narrow - kept_bytes if self._keeps_casts else 0.0
        self.run(name, CASTS, "copy", read=wide, written=narrow, kept=kept_bytes, around=0.0, dtype=dtype)
        if not self._keeps_casts:
            self.back(name, CASTS, "copy", read=narrow, written=wide, around=narrow, dtype=dtype)
            return False
        around = beside + narrow - kept_bytes
        self.back(name, CASTS, "copy", read=narrow, written=wide, around=around, dtype=dtype, gradient=gradient, left=left)
        return True

    def _backward_op(self, op: Op) -> None:
        """Append to the backward of the last description, before it gives back what was kept."""
        if not self.training:
            return
        ops = self._backward[-1]
        returned = ops and ops[-1].name == f"{self._kept} released"
        ops.insert(len(ops) - 1 if returned else len(ops), op)

    def _returned(self, name: str, group: str, kept: Figure) -> Op:
        return Op(
            name=f"{name} released",
            group=group,
            section=f"{self._name} backward",
            kind="copy",
            phase="backward",
            dtype="fp32",
            saved_bytes=-kept,
            launches=0.0,
            repeat=self._repeat,
        )


SEEDED = 2
"""Operations by which code of our own drops: a seed is drawn, then all else is done."""
MASKED_BY = 2
"""Operations that apply a mask on a CPU: by it, and by the scale in place."""


def masked(elements: Figure, size: float) -> tuple[Figure, Figure]:
    """Bytes read and written by these: the mask is first widened to the numbers that it multiplies."""
    moved = elements * size
    return elements + 3 * moved, 3 * moved


CASTS, AUTOCAST_COPY = "precision casts", "weight cast"
_DRAWN_BYTES = 2.0
"""Random bytes that decide over one element on a CPU."""


def _positive(value: Figure) -> Figure:
    return max(value, 0.0) if isinstance(value, float) else np.maximum(value, 0.0)


def _nonzero(value: Figure) -> bool:
    return bool(value.any()) if isinstance(value, np.ndarray) else value != 0
