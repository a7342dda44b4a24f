"""Operations of one layer of the reference module (txlplan.nn: RelativeAttention, then FeedForward).

Letters: B sequences, T queries, M memory slots, S = M + T keys, H heads, K width of a head, D d_model, F d_inner.
Elements are multiplied by the bytes of `Numbers`: `c` in products, `f` in residuals, norms and softmax.
"""

from __future__ import annotations

# ruff: noqa: N806  (products of the legend's letters name sizes: BTD, BHTS)
from dataclasses import dataclass

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
    """Sizes of one micro-batch; B is an array over candidates."""

    B: FloatArray
    T: int
    M: int

    @property
    def S(self) -> int:  # noqa: N802  (the letter of the legend)
        """Keys: memory, then segment."""
        return self.M + self.T


def layer(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Describe one layer."""
    attention(section, model, at)
    feed_forward(section, model, at)


def attention(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Context, q k v and position projections, scores, softmax, weighted sum, output, residual."""
    c, f, width = section.numbers.compute, section.numbers.wide, model.n_head * model.d_head
    BTD, BSD = at.B * at.T * model.d_model, at.B * at.S * model.d_model
    BTW, BSW = at.B * at.T * width, at.B * at.S * width
    pre = model.norm == "pre"
    context_kept = 0.0 if section.numbers.cast and not pre else BSD * f
    section.run("context", PROJECTIONS, "copy", read=BSD * f, written=BSD * f, kept=context_kept)
    section.back("context", PROJECTIONS, read=2 * BTD * f, written=BTD * f)
    section.held = BSD * f - context_kept
    if pre:
        norm(section, "attention norm", rows=at.B * at.S, width=model.d_model, kept=0.0)
    section.cast("context cast", elements=BSD, kept=BSD * c)
    kept = BSD * f if pre and not section.numbers.cast else 0.0
    section.linear("q k v", PROJECTIONS, rows=at.B * at.S, n=3 * width, k=model.d_model, kept=kept)
    section.held = section.held + 3 * BSW * c
    section.back("q k v gather", PROJECTIONS, "copy", launches=2, read=(BTW + 3 * BSW) * c, written=4 * BSW * c)
    _positions(section, model, at)
    _scores(section, model, at)
    _softmax(section, model, at)
    _values(section, model, at)
    section.linear("attention output", PROJECTIONS, rows=at.B * at.T, n=model.d_model, k=width, kept=0.0)
    section.held = 0.0
    section.dropout("attention output dropout", RESIDUAL, elements=BTD, size=c, rate=model.dropout)
    _residual(section, "attention", model, at)


def _positions(section: Section, model: ModelConfig, at: Lengths) -> None:
    """W R once for all sequences, and u and v added to the queries (in fp32 under autocast: the biases are)."""
    c, f, width = section.numbers.compute, section.numbers.wide, model.n_head * model.d_head
    BTW = at.B * at.T * width
    section.cast("position cast", elements=float(at.S * model.d_model), kept=at.S * model.d_model * c)
    section.linear("positions", PROJECTIONS, rows=float(at.S), n=width, k=model.d_model, kept=0.0, input_gradient=False)
    section.run("query biases", SCORES, launches=2, read=2 * BTW * c, written=2 * BTW * f)
    section.back("query biases", SCORES, launches=3, read=2 * BTW * f + 2 * BTW * c, written=BTW * c, around=2 * BTW * f)
    if section.numbers.cast:
        section.run("query casts", SCORES, "copy", launches=2, read=2 * BTW * f, written=2 * BTW * c)
        section.back("query casts", SCORES, "copy", launches=4, read=2 * BTW * (c + f), written=2 * BTW * (c + f))


def _scores(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Content and position scores, shifted, added, scaled and masked. Products first copy their operands by head."""
    c, heads = section.numbers.compute, at.B * model.n_head
    BTW, BSW = at.B * at.T * model.n_head * model.d_head, at.B * at.S * model.n_head * model.d_head
    BHTS = heads * at.T * at.S
    for name in ("content", "position"):
        section.run(
            f"{name} operands", SCORES, "copy", launches=2, read=(BTW + BSW) * c, written=(BTW + BSW) * c, kept=(BTW + BSW) * c
        )
        section.product(f"{name} scores", SCORES, kind="bmm", count=heads, m=at.T, n=at.S, k=model.d_head)
        if name == "position":
            section.back("position sum", SCORES, read=BSW * c, written=BSW * c / at.B, around=BSW * c)
        section.product(
            f"{name} scores", SCORES, kind="bmm", count=heads, m=model.d_head, n=at.S, k=at.T, around=BSW * c, phase="backward"
        )
        section.product(
            f"{name} scores", SCORES, kind="bmm", count=heads, m=at.T, n=model.d_head, k=at.S, around=BTW * c, phase="backward"
        )
        section.held = section.held + BHTS * c
    section.run("relative shift", SCORES, "copy", read=BHTS * c, written=BHTS * c)
    section.back("relative shift", SCORES, "copy", launches=2, read=2 * BHTS * c, written=2 * BHTS * c, around=3 * BHTS * c)
    section.run("score sum", SCORES, read=2 * BHTS * c, written=BHTS * c, around=2 * BHTS * c)
    section.run("score scale", SCORES, read=BHTS * c, written=BHTS * c, around=2 * BHTS * c)
    section.back("score scale", SCORES, read=BHTS * c, written=BHTS * c)
    section.held = section.held - BHTS * c
    section.run("score mask", SCORES, read=2 * BHTS * c, written=2 * BHTS * c, around=BHTS * c)
    section.back("score mask", SCORES, read=2 * BHTS * c, written=2 * BHTS * c, around=2 * BHTS * c)


def _softmax(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Softmax in fp32 over keys, dropout of probabilities, and back to the precision of products."""
    c, f = section.numbers.compute, section.numbers.wide
    BHTS = at.B * model.n_head * at.T * at.S
    section.held = section.held + BHTS * (c + (f if section.numbers.cast else 0.0))
    if section.numbers.cast:
        section.run("score widening", SCORES, "copy", read=BHTS * c, written=BHTS * f, around=0.0)
        section.back("score widening", SCORES, "copy", read=BHTS * f, written=BHTS * c)
    section.run("attention softmax", SCORES, "softmax", read=BHTS * f, written=BHTS * f, kept=BHTS * f)
    section.back("attention softmax", SCORES, "softmax", read=2 * BHTS * f, written=BHTS * f)
    section.held = section.held - BHTS * (f if section.numbers.cast else 0.0)
    section.dropout(
        "attention dropout", SCORES, elements=BHTS, size=f, rate=model.dropatt, kept_output=not section.numbers.cast
    )
    section.cast("probability cast", elements=BHTS, kept=BHTS * c)


def _values(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Values weighted by the probabilities, and gathered from heads."""
    c, heads = section.numbers.compute, at.B * model.n_head
    BTW, BSW = at.B * at.T * model.n_head * model.d_head, at.B * at.S * model.n_head * model.d_head
    section.run("value operands", VALUES, "copy", read=BSW * c, written=BSW * c, kept=BSW * c)
    section.product("weighted values", VALUES, kind="bmm", count=heads, m=at.T, n=model.d_head, k=at.S)
    section.product(
        "weighted values", VALUES, kind="bmm", count=heads, m=at.S, n=model.d_head, k=at.T, around=BSW * c, phase="backward"
    )
    section.product("weighted values", VALUES, kind="bmm", count=heads, m=at.T, n=at.S, k=model.d_head, phase="backward")
    section.run("head gather", VALUES, "copy", read=BTW * c, written=BTW * c, kept=BTW * c)
    section.back("head gather", VALUES, "copy", read=BTW * c, written=BTW * c)


def feed_forward(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Two products with a nonlinearity and dropout between them, residual and norm."""
    c, f, rows = section.numbers.compute, section.numbers.wide, at.B * at.T
    BTD, BTF = rows * model.d_model, rows * model.d_inner
    if model.norm == "pre":
        norm(section, "feed-forward norm", rows=rows, width=model.d_model, kept=0.0)
    section.cast("feed-forward cast", elements=BTD, kept=BTD * c)
    kept = 0.0 if section.numbers.cast else BTD * f
    section.linear("inner", FEED_FORWARD, rows=rows, n=model.d_inner, k=model.d_model, kept=kept, bias=True)
    drops = model.dropout > 0
    gelu = model.activation == "gelu"
    section.run(
        model.activation,
        FEED_FORWARD,
        read=BTF * c,
        written=BTF * c,
        kept=BTF * c * (2 if gelu and not drops else 1),
        around=BTF * c,
    )
    section.back(model.activation, FEED_FORWARD, read=2 * BTF * c, written=BTF * c)
    section.dropout("inner dropout", FEED_FORWARD, elements=BTF, size=c, rate=model.dropout, kept_output=True)
    section.linear("outer", FEED_FORWARD, rows=rows, n=model.d_model, k=model.d_inner, kept=0.0, bias=True)
    section.dropout("outer dropout", RESIDUAL, elements=BTD, size=c, rate=model.dropout)
    _residual(section, "feed-forward", model, at)


def _residual(section: Section, name: str, model: ModelConfig, at: Lengths) -> None:
    """Sum with what went in, normed after (post) or kept as it is (pre)."""
    c, f, BTD = section.numbers.compute, section.numbers.wide, at.B * at.T * model.d_model
    section.run(f"{name} residual", RESIDUAL, read=BTD * (f + c), written=BTD * f)
    section.back(f"{name} residual", RESIDUAL, read=2 * BTD * f, written=BTD * f)
    if section.numbers.cast:
        section.back(f"{name} residual cast", RESIDUAL, "copy", read=BTD * f, written=BTD * c)
    if model.norm == "post":
        norm(section, f"{name} norm", rows=at.B * at.T, width=model.d_model, kept=BTD * f)
    elif name == "attention":
        section.run("residual kept", RESIDUAL, read=0.0, written=0.0, kept=BTD * f, around=0.0, launches=0)


def norm(section: Section, name: str, *, rows: FloatArray, width: int, kept: FloatArray | float) -> None:
    """LayerNorm in fp32: keeps its input and two statistics a row."""
    f, elements = section.numbers.wide, rows * width
    section.run(name, RESIDUAL, "norm", read=elements * f, written=elements * f, kept=kept + 2 * rows * f, around=elements * f)
    section.back(name, RESIDUAL, "norm", read=2 * elements * f, written=elements * f, gradient=2 * width * f)
