from __future__ import annotations

from typing import Any

import pytest

from txlplan.data import Settings, parse_ratios
from txlplan.errors import InputError


@pytest.mark.parametrize(
    ("text", "ratios"), [("0.9,0.05,0.05", (0.9, 0.05, 0.05)), ("0.8, 0.2", (0.8, 0.2, 0.0)), ("1,0,0", (1.0, 0.0, 0.0))]
)
def test_ratios_are_parsed(text: str, ratios: tuple[float, float, float]) -> None:
    assert parse_ratios(text) == ratios


@pytest.mark.parametrize("text", ["", "0.9", "a,b,c", "0.5,0.2,0.2,0.1"])
def test_what_is_no_list_of_shares_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no list of shares"):
        parse_ratios(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratios": (0.9, 0.2, 0.0)}, "the sum 1"),
        ({"ratios": (1.1, -0.1, 0.0)}, "zero or more"),
        ({"ratios": (0.0, 0.5, 0.5)}, "train more than zero"),
        ({"vocabulary": "byte"}, "vocabulary = 'byte'"),
        ({"assignment": "random"}, "assignment = 'random'"),
        ({"min_count": 0}, "min_count = 0"),
        ({"min_count": 2}, "no effect"),
        ({"vocabulary_size": 512}, "no effect"),
        ({"special_symbols": ("<pad>",)}, "no effect"),
        ({"vocabulary": "words", "vocabulary_of": "/data", "vocabulary_size": 50}, "no effect"),
        ({"vocabulary": "words", "special_symbols": ("a b",)}, "white space"),
        ({"vocabulary": "words", "special_symbols": ("<a>", "<a>")}, "twice"),
        ({"vocabulary": "bpe", "vocabulary_size": 100}, "at least 256"),
        ({"vocabulary": "words", "vocabulary_size": 1}, "at least 3"),
        ({"documents": "page"}, "documents = 'page'"),
        ({"documents": "starts:"}, "not known"),
        ({"documents": "ends:("}, "not a regular expression"),
    ],
)
def test_wrong_settings_are_refused_with_the_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**wrong)


def test_a_misspelt_vocabulary_gets_the_nearest_offered() -> None:
    with pytest.raises(InputError) as caught:
        Settings(vocabulary="charcters")  # type: ignore[arg-type]
    assert caught.value.hint == "did you mean 'characters'?"
