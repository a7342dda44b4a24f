"""JSON Lines and CSV: there and back, and what is wrong named by file and line."""

from __future__ import annotations

import csv

import pytest
from record_factory import make_failed, make_family, make_record

from txlplan.errors import RecordError
from txlplan.records import export_csv, export_jsonl, import_csv, import_jsonl

PAIRS = [(export_jsonl, import_jsonl, "records.jsonl"), (export_csv, import_csv, "records.csv")]


@pytest.mark.parametrize(("write", "read", "name"), PAIRS)
def test_records_survive_the_round_trip(tmp_path, write, read, name):
    records = [
        *make_family(),
        make_failed(message='=1+1, "quoted"\nnext line'),
        make_record(7, estimate=None, text="\x00é\u2028"),
    ]
    assert write(records, tmp_path / name) == len(records)
    assert read(tmp_path / name) == records


@pytest.mark.parametrize(("write", "read", "name"), PAIRS)
def test_no_records_survive_too(tmp_path, write, read, name):
    assert write([], tmp_path / name) == 0
    assert read(tmp_path / name) == []


def test_corrupt_lines_are_all_named_and_nothing_is_read(tmp_path):
    path = tmp_path / "r.jsonl"
    export_jsonl([make_record(1), make_record(2)], path)
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, b"{broken", b"", b'{"schema_version": 9}', b"\xff\xfe", second[:-40]]))
    with pytest.raises(RecordError) as caught:
        import_jsonl(path)
    message = caught.value.message
    assert f"{path}:2: not valid JSON" in message
    assert f"{path}:4: schema_version 9 is too new" in message
    assert f"{path}:5: not UTF-8 at byte 0" in message
    assert f"{path}:6: not valid JSON" in message
    assert f"{path}:1" not in message
    told = []
    assert import_jsonl(path, on_corrupt=told.append) == [make_record(1)]
    assert len(told) == 4


def test_many_corrupt_lines_are_counted(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("{\n" * 25)
    with pytest.raises(RecordError, match="and 15 more"):
        import_jsonl(path)


def test_a_spreadsheet_sees_flat_columns_and_no_formula(tmp_path):
    path = tmp_path / "r.csv"
    export_csv([make_record(1, message="=cmd()", peak_memory_bytes=None)], path)
    with path.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["message"] == "'=cmd()"
    assert row["peak_memory_bytes"] == ""
    assert float(row["predicted_tokens_per_s"]) == 5200.0
    assert row["model"] == "demo-bytes"


def test_a_csv_names_the_line_of_a_damaged_document(tmp_path):
    path = tmp_path / "r.csv"
    export_csv([make_record(1, message="two\nlines"), make_record(2)], path)
    path.write_text(path.read_text().replace('""schema_version"": 1', '""schema_version"": 1e', 2).replace("1e,", "1,", 1))
    with pytest.raises(RecordError, match=r"r\.csv:4: not valid JSON"):
        import_csv(path)


def test_a_csv_without_documents_is_refused(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("id,model\n1,x\n")
    with pytest.raises(RecordError, match="no column 'document'"):
        import_csv(path)
    path.write_text("id,document\n1\n")
    with pytest.raises(RecordError, match=r"r\.csv:2: not valid JSON"):
        import_csv(path)


@pytest.mark.parametrize("read", [import_jsonl, import_csv])
def test_a_file_that_cannot_be_read_is_named(tmp_path, read):
    with pytest.raises(RecordError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(RecordError, match="cannot be read"):
        read(tmp_path)


def test_a_csv_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"id,document\n\xff")
    with pytest.raises(RecordError, match="not UTF-8 at byte 12"):
        import_csv(path)


def test_a_byte_order_mark_is_no_matter(tmp_path):
    for write, read, name in PAIRS:
        write([make_record(1)], tmp_path / name)
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
        assert read(tmp_path / name) == [make_record(1)]
