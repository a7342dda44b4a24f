"""A record survives its document, and a document that is none is refused with the reason."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_estimate, make_failed, make_family, make_record

from txlplan.errors import RecordError
from txlplan.records import from_document, to_document
from txlplan.records._document import from_line, to_line

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    step_s=st.lists(finite, max_size=5).map(tuple),
    text=st.none() | st.text(),
    energy_j=st.none() | finite,
    peak=st.none() | st.integers(0, 2**60),
)
def test_any_record_survives_its_line(step_s, text, energy_j, peak):
    record = make_record(steps=2, step_s=step_s, text=text, energy_j=energy_j, peak_memory_bytes=peak)
    assert from_line(to_line(record), "here") == record


@pytest.mark.parametrize("record", [*make_family(), make_failed(), make_record(estimate=None, steps=0)])
def test_realistic_records_survive(record):
    assert from_document(json.loads(json.dumps(to_document(record))), "here") == record


@pytest.mark.parametrize(
    ("version", "says", "hints"),
    [(2, "too new", "upgrade"), (0, "too old", "again"), ("1", "not a whole number", ""), (True, "not a whole number", "")],
)
def test_a_foreign_schema_version_is_refused(version, says, hints):
    with pytest.raises(RecordError, match=says) as caught:
        from_document(to_document(make_record()) | {"schema_version": version}, "store.jsonl:7")
    assert caught.value.message.startswith("store.jsonl:7")
    assert hints in (caught.value.hint or "")


def test_a_missing_schema_version_is_refused():
    document = to_document(make_record())
    del document["schema_version"]
    with pytest.raises(RecordError, match="schema_version is missing"):
        from_document(document, "here")


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(RecordError, match="unknown key 'outcom'") as caught:
        from_document(to_document(make_record()) | {"outcom": "ok"}, "here")
    assert caught.value.hint == "did you mean 'outcome'?"


def test_an_unknown_key_inside_the_estimate_is_refused():
    document = to_document(make_record())
    document["estimate"]["step_z"] = 1
    with pytest.raises(RecordError, match=r"estimate\.step_z"):
        from_document(document, "here")


@pytest.mark.parametrize("raw", [[], "text", 3, None])
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(RecordError, match="not a record"):
        from_document(raw, "here")


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(RecordError, match="not finite"):
        to_line(make_record(tokens_per_s=float("nan")))


def test_a_number_that_is_not_finite_inside_the_estimate_is_refused():
    estimate = dataclasses.replace(make_estimate(), mfu=float("inf"))
    with pytest.raises(RecordError, match="not finite"):
        to_line(make_record(estimate=estimate))
