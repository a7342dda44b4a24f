"""Operations of one layer of the reference module (txlplan.nn: RelativeAttention, then FeedForward).

Sizes are in elements; they are multiplied by `c`, the bytes of an element in products, `r`, those in residuals and norms, or
`f`, those of parameters and in softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.cost._numbers import Shape
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._section import Section
from txlplan.model import ModelConfig

PROJECTIONS, SCORES, VALUES, FEED_FORWARD, RESIDUAL = (
    "projections",
    "attention scores",
    "attention values",
    "feed-forward",
    "residual and norm",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Sizes of one micro-batch on one device, [candidates].

    Letters: B sequences, T queries, M memory slots, C = M + T positions of context, S keys (those of all devices that share
    the context), H heads, W their joint width, D d_model, F d_inner. Under context parallelism T, M and C are a device's
    share, under tensor parallelism H, W and F are.
    """

    B: FloatArray
    T: int
    M: int
    model: ModelConfig
    context_parallel: int = 1

    @property
    def C(self) -> int:  # noqa: N802  (a letter of the legend, as are the products below)
        """Positions whose keys and values are computed here: memory, then segment."""
        return self.M + self.T

    @property
    def S(self) -> int:  # noqa: N802
        """Keys: memory, then segment, of all devices that share the context."""
        return self.C * self.context_parallel

    @property
    def W(self) -> int:  # noqa: N802
        """Width of all heads together."""
        return self.model.n_head * self.model.d_head

    @property
    def rows(self) -> FloatArray:
        """Tokens, B·T."""
        return self.B * self.T

    @property
    def BTD(self) -> FloatArray:  # noqa: N802
        """Hidden states."""
        return self.rows * self.model.d_model

    @property
    def BSD(self) -> FloatArray:  # noqa: N802
        """Hidden states with memory."""
        return self.B * self.C * self.model.d_model

    @property
    def BTW(self) -> FloatArray:  # noqa: N802
        """Queries."""
        return self.rows * self.W

    @property
    def BSW(self) -> FloatArray:  # noqa: N802
        """Keys, or values."""
        return self.B * self.S * self.W

    @property
    def BHTS(self) -> FloatArray:  # noqa: N802
        """Scores."""
        return self.rows * self.S * self.model.n_head

    @property
    def BTF(self) -> FloatArray:  # noqa: N802
        """Inner states of the feed-forward layer."""
        return self.rows * self.model.d_inner


def layer(section: Section, at: Lengths) -> None:
    """Describe one layer."""
    _context(section, at)
    _positions(section, at)
    _scores(section, at)
    _softmax(section, at)
    _values(section, at)
    attention_output(section, at)
    feed_forward(section, at)


def _context(section: Section, at: Lengths) -> None:
    """Memory joined to the segment, and the product that gives q, k and v of both."""
    c, r, d = section.numbers.compute, section.numbers.residual, section.numbers.narrow
    pre = at.model.norm == "pre"
    kept = 0.0 if section.numbers.narrows and not pre else at.BSD * r
    section.run("context", PROJECTIONS, "copy", read=at.BSD * r, written=at.BSD * r, kept=kept)
    section.back("context", PROJECTIONS, read=2 * at.BTD * r, written=at.BTD * r)
    section.held = at.BSD * r - kept
    if pre:
        norm(section, "attention norm", rows=at.B * at.C, width=at.model.d_model, kept=0.0)
    section.narrow("context cast", elements=at.BSD)
    normed = at.BSD * r if pre and not section.numbers.narrows else 0.0
    section.linear("q k v", PROJECTIONS, rows=at.B * at.C, n=3 * at.W, k=at.model.d_model, kept=normed)
    section.held = section.held + 3 * at.BSW * c
    section.run("q k v gather", PROJECTIONS, "copy", launches=0.0, read=0.0, written=0.0, dtype=d)
    read, written = (at.BTW + 3 * at.BSW) * c, 4 * at.BSW * c
    around = 6 * at.BSW * c
    section.back("q k v gather", PROJECTIONS, "copy", launches=2, read=read, written=written, around=around, dtype=d)


def _positions(section: Section, at: Lengths) -> None:
    """W R once for all sequences, and u and v added to the queries (in fp32 under autocast: the biases are)."""
    c, f, d = section.numbers.compute, section.numbers.wide, section.numbers.narrow
    distances = float(at.S * at.model.d_model)
    section.narrow("position cast", elements=distances, gradient=False)
    section.linear("positions", PROJECTIONS, rows=float(at.S), n=at.W, k=at.model.d_model, kept=0.0, input_gradient=False)
    section.run("query biases", SCORES, launches=2, read=2 * at.BTW * c, written=2 * at.BTW * f, dtype=d)
    section.held = section.held + 2 * at.BTW * f
    read = 2 * at.BTW * (c + f)
    around, gradient = 2 * at.BTW * f, 2 * at.W * f if at.model.untie_r else 0.0
    section.back("query biases", SCORES, launches=3, read=read, written=at.BTW * c, around=around, dtype=d, gradient=gradient)
    if section.numbers.cast:
        section.run("query casts", SCORES, "copy", launches=2, read=2 * at.BTW * f, written=2 * at.BTW * c, dtype=d)
        section.back("query casts", SCORES, "copy", launches=4, read=read, written=read, dtype=d)


def _scores(section: Section, at: Lengths) -> None:
    """Content and position scores, shifted, added, scaled and masked. Products first copy their operands by head."""
    c, f, d = section.numbers.compute, section.numbers.wide, section.numbers.narrow
    scores = at.BHTS * c
    shape: Shape = {
        "count": at.B * at.model.n_head,
        "m": float(at.T),
        "n": float(at.S),
        "k": float(at.model.d_head),
    }
    operands = (at.BTW + at.BSW) * c
    for name in ("content", "position"):
        section.run(f"{name} operands", SCORES, "copy", launches=2, read=operands, written=operands, kept=operands, dtype=d)
        section.product(f"{name} scores", SCORES, "bmm", **shape)
        if name == "position":
            section.back("position sum", SCORES, read=at.BSW * c, written=at.S * at.W * c, around=at.BSW * c, dtype=d)
        for around in (at.BSW * c, at.BTW * c):
            section.gradient(f"{name} scores", SCORES, "bmm", around=around, **shape)
        section.held = section.held + scores
    section.run("relative shift", SCORES, "copy", read=scores, written=scores, dtype=d)
    section.back("relative shift", SCORES, "copy", launches=2, read=2 * scores, written=2 * scores, around=3 * scores, dtype=d)
    section.run("score sum", SCORES, read=2 * scores, written=scores, around=2 * scores, dtype=d)
    section.run("score scale", SCORES, read=scores, written=scores, around=2 * scores, dtype=d)
    section.back("score scale", SCORES, read=scores, written=scores, dtype=d)
    section.held = section.held - scores - 2 * at.BTW * f
    section.run("score mask", SCORES, read=2 * scores, written=2 * scores, around=scores, dtype=d)
    section.back("score mask", SCORES, read=2 * scores, written=2 * scores, around=2 * scores, dtype=d)


def _softmax(section: Section, at: Lengths) -> None:
    """Softmax in fp32 over keys, dropout of probabilities, and back to the precision of products."""
    c, f, d = section.numbers.compute, section.numbers.wide, section.numbers.narrow
    widened = at.BHTS * f if section.numbers.cast else 0.0
    section.held = section.held + at.BHTS * c + widened
    if section.numbers.cast:
        section.run("score widening", SCORES, "copy", read=at.BHTS * c, written=at.BHTS * f, around=0.0, dtype=d)
        section.back("score widening", SCORES, "copy", read=at.BHTS * f, written=at.BHTS * c, dtype=d)
    section.run("attention softmax", SCORES, "softmax", read=at.BHTS * f, written=at.BHTS * f, kept=at.BHTS * f)
    section.back("attention softmax", SCORES, "softmax", read=2 * at.BHTS * f, written=at.BHTS * f)
    section.held = section.held - widened
    kept_output = not section.numbers.cast
    section.dropout("attention dropout", SCORES, elements=at.BHTS, size=f, rate=at.model.dropatt, kept_output=kept_output)
    section.cast("probability cast", elements=at.BHTS, kept=at.BHTS * c)


def _values(section: Section, at: Lengths) -> None:
    """Values weighted by the probabilities, and gathered from heads."""
    c, d = section.numbers.compute, section.numbers.narrow
    shape: Shape = {
        "count": at.B * at.model.n_head,
        "m": float(at.T),
        "n": float(at.model.d_head),
        "k": float(at.S),
    }
    values, mixed = at.BSW * c, at.BTW * c
    section.run("value operands", VALUES, "copy", read=values, written=values, kept=values, dtype=d)
    section.product("weighted values", VALUES, "bmm", **shape)
    for around in (values, at.BHTS * c):
        section.gradient("weighted values", VALUES, "bmm", around=around, **shape)
    section.run("head gather", VALUES, "copy", read=mixed, written=mixed, kept=mixed, dtype=d)
    section.back("head gather", VALUES, "copy", read=mixed, written=mixed, dtype=d)


def attention_output(section: Section, at: Lengths) -> None:
    """Heads back to the hidden width, residual and norm; what the attention held is given up."""
    section.linear("attention output", PROJECTIONS, rows=at.rows, n=at.model.d_model, k=at.W, kept=0.0)
    section.held = section.base
    _residual(section, "attention", at)


def feed_forward(section: Section, at: Lengths) -> None:
    """Two products with a nonlinearity and dropout between them, residual and norm."""
    c, r, model = section.numbers.compute, section.numbers.residual, at.model
    if model.norm == "pre":
        norm(section, "feed-forward norm", rows=at.rows, width=model.d_model, kept=0.0)
    if not section.own_norm:
        section.narrow("feed-forward cast", elements=at.BTD)
    kept = 0.0 if section.numbers.narrows else at.BTD * r
    if section.own_loss and section.numbers.narrows and model.norm == "post":
        section.held = section.base + at.BTD * r  # the residual, of which products keep a narrowed copy
    if section.own_linear and model.activation == "relu" and not (model.dropout > 0 and section.training):
        _relu_between(section, at)
        _residual(section, "feed-forward", at)
        section.held = section.base
        return
    section.linear("inner", FEED_FORWARD, rows=at.rows, n=model.d_inner, k=model.d_model, kept=kept, bias=True)
    if section.own_dropout and model.activation == "relu" and model.dropout > 0 and section.training:
        section.relu_dropout("inner dropout", FEED_FORWARD, moved=at.BTF * c)
    else:
        _activation(section, at)
    section.linear("outer", FEED_FORWARD, rows=at.rows, n=model.d_model, k=model.d_inner, kept=0.0, bias=True)
    _residual(section, "feed-forward", at)
    section.held = section.base


def _relu_between(section: Section, at: Lengths) -> None:
    """By one function, whose products apply the nonlinearity each way; it keeps what is between them."""
    model, inner, hidden = at.model, at.BTF * section.numbers.compute, at.BTD * section.numbers.compute
    around, kept = hidden + inner, 0.0 if section.numbers.narrows else hidden
    section.linear("inner", FEED_FORWARD, rows=at.rows, n=model.d_inner, k=model.d_model, kept=kept, bias=True, around=around)
    section.run("relu", FEED_FORWARD, launches=0.0, read=0.0, written=0.0, kept=inner, around=0.0)
    section.linear("outer", FEED_FORWARD, rows=at.rows, n=model.d_model, k=model.d_inner, kept=0.0, bias=True)


def _activation(section: Section, at: Lengths) -> None:
    """The nonlinearity, and dropout of it."""
    model, inner = at.model, at.BTF * section.numbers.compute
    # relu keeps its output, gelu its input; the next product keeps its own input, which dropout makes another tensor.
    kept = 2 * inner if model.activation == "gelu" and model.dropout == 0 else inner
    section.run(
        model.activation,
        FEED_FORWARD,
        read=inner,
        written=inner,
        kept=kept,
        around=inner,
        dtype=section.numbers.narrow,
    )
    section.back(model.activation, FEED_FORWARD, read=2 * inner, written=inner, dtype=section.numbers.narrow)
    size = section.numbers.compute
    section.dropout("inner dropout", FEED_FORWARD, elements=at.BTF, size=size, rate=model.dropout, kept_output=True)


def _residual(section: Section, name: str, at: Lengths) -> None:
    """Dropout, and the sum with what went in, normed after (post) or kept as it is (pre).

    The sum's backward adds two gradients; that of attention is counted with the context.
    """
    c, r, model = section.numbers.compute, section.numbers.residual, at.model
    section.dropout(f"{name} dropout", RESIDUAL, elements=at.BTD, size=c, rate=model.dropout)
    if section.own_norm:
        _normed_sum(section, f"{name} norm", at)
        return
    kept = at.BTD * r if model.norm == "pre" and name == "attention" else 0.0
    section.run(f"{name} residual", RESIDUAL, read=at.BTD * (r + c), written=at.BTD * r, kept=kept)
    if name != "attention":
        section.back(f"{name} residual", RESIDUAL, read=2 * at.BTD * r, written=at.BTD * r)
    if section.numbers.narrows:
        dtype = section.numbers.narrow
        section.back(f"{name} residual cast", RESIDUAL, "copy", read=at.BTD * r, written=at.BTD * c, dtype=dtype)
    if model.norm == "post":
        norm(section, f"{name} norm", rows=at.rows, width=model.d_model, kept=at.BTD * r)


def _normed_sum(section: Section, name: str, at: Lengths) -> None:
    """Sum and norm in one pass: keeps the sum, two statistics a row, and the result as the next product takes it."""
    wide, narrow = at.BTD * section.numbers.residual, at.BTD * section.numbers.compute
    kept, gradient = wide + narrow + 2 * at.rows * section.numbers.wide, 2 * at.model.d_model * section.numbers.wide
    section.run(name, RESIDUAL, "norm", read=wide + narrow, written=2 * wide + narrow, kept=kept, around=wide + narrow)
    around = wide + narrow  # beside the gradients that it takes, which are there all along
    section.back(name, RESIDUAL, "norm", read=2 * wide + narrow, written=wide + narrow, around=around, gradient=gradient)


def norm(section: Section, name: str, *, rows: FloatArray, width: int, kept: FloatArray | float) -> None:
    """LayerNorm in fp32: keeps its input and two statistics a row."""
    f, moved = section.numbers.wide, rows * width * section.numbers.residual
    section.run(name, RESIDUAL, "norm", read=moved, written=moved, kept=kept + 2 * rows * f, around=moved)
    section.back(name, RESIDUAL, "norm", read=2 * moved, written=moved, gradient=2 * width * f)
