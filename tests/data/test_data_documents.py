from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.data._documents import DocumentCutter

RULES = ("file", "line", "blank-line", "starts:^= .* =$", "ends:<end>")
LINES = st.lists(st.sampled_from(["a\n", "= T =\n", "\n", " \t\n", "x <end> y\n", "é <end>\n", "word word\n"]), max_size=12)


def cut(rule: str, blocks: list[str]) -> list[str]:
    cutter = DocumentCutter(rule)
    lengths = [length for block in blocks for length, _ in cutter.feed(block.encode())]
    lengths += [length for length, _ in cutter.finish()]
    data, begin, documents = "".join(blocks).encode(), 0, []
    for length in lengths:
        documents.append(data[begin : begin + length].decode())
        begin += length
    assert begin == len(data)
    return documents


@pytest.mark.parametrize(
    ("rule", "text", "documents"),
    [
        ("file", "a\nb\n", ["a\nb\n"]),
        ("line", "a\nb\n\nc", ["a\n", "b\n", "\n", "c"]),
        ("blank-line", "a\nb\n\n \nc\n\nd", ["a\nb\n\n \n", "c\n\n", "d"]),
        ("starts:^= .* =$", "= A =\nx\n= B =\ny\n", ["= A =\nx\n", "= B =\ny\n"]),
        ("ends:<end>", "é\n<end>\ny <end> <end>\nz", ["é\n<end>\n", "y <end> <end>\n", "z"]),
    ],
)
def test_each_rule_cuts_where_it_says(rule: str, text: str, documents: list[str]) -> None:
    assert cut(rule, [text]) == documents


@pytest.mark.parametrize("rule", RULES)
@given(lines=LINES, cuts=st.sets(st.integers(0, 12)))
def test_documents_do_not_depend_on_where_blocks_end(rule: str, lines: list[str], cuts: set[int]) -> None:
    edges = [0, *sorted(c for c in cuts if c < len(lines)), len(lines)]
    blocks = ["".join(lines[a:b]) for a, b in pairwise(edges)]
    assert cut(rule, [block for block in blocks if block]) == cut(rule, ["".join(lines)])


@given(st.lists(st.sampled_from(["a\n", "b c\n", "\n"])).map("".join))
def test_blank_lines_divide_as_a_plain_reading_says(text: str) -> None:
    expected = re.split(r"(?<=\n\n)(?=[^\n])", "x\n" + text)
    assert cut("blank-line", ["x\n" + text]) == expected


def test_the_draw_depends_on_the_text_alone_and_is_uniform() -> None:
    def draws(texts: list[str]) -> list[float]:
        cutter = DocumentCutter("line")
        return [draw for text in texts for _, draw in cutter.feed(text.encode())]

    texts = [f"line {number}\n" for number in range(2000)]
    forward = draws(texts)
    assert draws(texts[::-1]) == forward[::-1]
    assert all(0 <= draw < 1 for draw in forward)
    assert abs(sum(forward) / len(forward) - 0.5) < 0.03
