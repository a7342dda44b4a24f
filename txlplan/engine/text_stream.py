"""The text of a row while its tokens come: whole characters as early as they are certain, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from txlplan.data import Vocabulary

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so the most tokens that one is made of."""


class TextStream:
    """`push` gives what can be shown after each token; `text` is all of it. A token costs the same however many there are.

    The pieces are the text, but that of bytes that are no UTF-8, of which a bad model may write many, they may hold another
    number of replacement characters.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self._vocabulary = vocabulary
        self._stop = stop
        self._tokens: list[int] = []
        self._begin = self._shown = 0
        self._held = ""
        self.is_stopped = False
        """Whether a stop string came; tokens after it are not taken."""

    def push(self, token: int) -> str:
        """Take a token; the text that is certain now. What may be the beginning of a stop string is held back."""
        if self.is_stopped:
            return ""
        self._tokens.append(token)
        text = self._held + self._decoded(final=False)
        released = _before(text, self._stop)
        self.is_stopped = released is not None
        if released is None:
            released = text[: len(text) - _overlap(text, self._stop)]
        self._held = text[len(released) :]
        return released

    def finish(self) -> str:
        """The text that was held back, once no token follows."""
        if self.is_stopped:
            return ""
        text = self._held + self._decoded(final=True)
        self._held = ""
        return text

    @property
    def text(self) -> str:
        """The text of all tokens, up to the first stop string."""
        whole = self._vocabulary.decode(self._tokens)
        before = _before(whole, self._stop)
        return whole if before is None else before

    def _decoded(self, *, final: bool) -> str:
        """The text of tokens not yet shown; what they mean may depend on the few before them, so these are decoded again."""
        before = self._vocabulary.decode(self._tokens[self._begin : self._shown])
        now = self._vocabulary.decode(self._tokens[self._begin :])
        pending = len(self._tokens) - self._shown
        if not final and now.endswith(_REPLACEMENT) and pending < _LONGEST_CHARACTER:
            return ""
        self._begin, self._shown = self._shown, len(self._tokens)
        return now[len(before) :]


def _before(text: str, stop: Sequence[str]) -> str | None:
    """What precedes the first of any stop string; None where there is none."""
    places = [place for place in (text.find(string) for string in stop) if place >= 0]
    return text[: min(places)] if places else None


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Characters at the end of `text` with which a stop string begins."""
    return max(
        (size for string in stop for size in range(1, len(string)) if text.endswith(string[:size])),
        default=0,
    )
