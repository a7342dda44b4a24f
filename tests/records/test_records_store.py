"""The store: what it gives back, what it survives, and what it refuses."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import make_environment, make_family, make_record

from txlplan import records
from txlplan.errors import RecordError
from txlplan.records import open_store

WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from record_factory import make_record
from txlplan.records import open_store
store = open_store(sys.argv[1])
for index in range(int(sys.argv[4])):
    store.put(make_record(index, id=f"{sys.argv[2]}-{index:05d}", steps=20))
    print(f"{sys.argv[2]}-{index:05d}", flush=True)
"""


def start_writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", WRITER, str(path), name, tests, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store" / "records.db"))


def test_what_is_put_comes_back(store):
    record = make_record(text="a\x00b\ud7ff")
    store.put(record)
    assert store.get(record.id) == record


def test_put_replaces_by_id(store):
    record = make_record(outcome="running")
    store.put(record)
    store.put(dataclasses.replace(record, outcome="ok"))
    assert [found.outcome for found in store.list()] == ["ok"]


def test_list_filters_and_is_newest_first(store):
    run, *trials = family = make_family()
    store.put_all(reversed(family))
    assert store.list() == family
    assert store.list(limit=2) == family[:2]
    assert store.list(kind="trial", parent=run.id) == trials
    assert store.list(outcome="ok", task="train", model="demo-bytes", device="local-cpu") == family
    assert store.list(outcome="oom") == []


def test_groups_of_the_store_are_those_of_its_records(store):
    """A run that goes on names the earlier one as its parent, and is a group of its own."""
    run, *rest = make_family()
    alone, repeats = make_record(60, kind="trial"), [make_record(seed, kind="bench", parent="b1") for seed in (61, 62)]
    kept = [run, *rest, make_record(63, parent=run.id), alone, *repeats]
    store.put_all(kept)
    assert store.groups() == {record.group for record in kept}
    assert store.groups() >= {run.id, kept[-4].id, alone.id, "b1"}


def test_a_unique_beginning_of_an_id_is_enough(store):
    first, second = make_record(1, id="20250101-aa"), make_record(2, id="20250102-bb")
    store.put_all((first, second))
    assert store.get("20250102") == second
    with pytest.raises(RecordError, match="several records: 20250101-aa, 20250102-bb"):
        store.get("2025")
    for nobody in ("2024", "", "%", "_"):
        with pytest.raises(RecordError, match="no record"):
            store.get(nobody)


def test_an_id_that_begins_another_is_found(store):
    short, long = make_record(1, id="a"), make_record(2, id="ab")
    store.put_all((short, long))
    assert store.get("a") == short


def test_nothing_is_written_where_one_record_is_wrong(store):
    with pytest.raises(RecordError, match="not finite"):
        store.put_all((make_record(1), make_record(2, tokens_per_s=float("inf"))))
    assert store.list() == []


def test_the_database_is_durable_and_waits(store):
    with store._engine.connect() as connection:
        pragma = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
        assert pragma == {"journal_mode": "wal", "synchronous": 2}
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() >= 30_000


def test_four_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "shared.db"
    writers = [start_writer(path, f"w{number}", 50) for number in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    for writer in writers:
        writer.stdout.close()
    assert len(open_store(str(path)).list()) == 200


def test_a_killed_writer_loses_nothing_it_reported(tmp_path):
    path = tmp_path / "killed.db"
    writer = start_writer(path, "w", 100_000)
    reported = [writer.stdout.readline().strip() for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    reported += writer.stdout.read().split("\n")[:-1]
    writer.wait()
    writer.stdout.close()
    store = open_store(str(path))
    kept = {record.id for record in store.list()}
    assert set(reported) <= kept
    assert len(kept) <= len(reported) + 1
    store.put(make_record(1, id="after"))
    assert store.get("after").id == "after"


def test_interrupted_runs_are_closed(store):
    here = make_environment(hostname=socket.gethostname())
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    running = {"outcome": "running", "finished_at": None, "environment": here}
    gone = make_record(1, process_id=done.pid, **running)
    alive = make_record(2, **running | {"process_id": os.getpid(), "created_at": records.now()})
    reused = make_record(3, process_id=os.getpid(), **running)
    elsewhere = make_record(4, process_id=done.pid, **running | {"environment": make_environment(hostname="another")})
    unknown = make_record(5, process_id=None, **running)
    store.put_all((gone, alive, reused, elsewhere, unknown))
    assert {record.id for record in store.close_interrupted()} == {gone.id, reused.id}
    closed = store.get(gone.id)
    assert (closed.outcome, closed.message) == ("failed", "interrupted")
    assert closed.finished_at is not None
    assert store.get(alive.id) == alive
    assert store.close_interrupted() == []


def test_the_default_store_is_the_users(home, monkeypatch, tmp_path):
    open_store().put(make_record())
    assert (home / "xdg_data_home" / "txlplan" / "records.db").is_file()
    monkeypatch.setenv("TXLPLAN_STORE", f"sqlite:///{tmp_path}/other.db")
    assert open_store().list() == []


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, just a note that is long enough" * 20)
    with pytest.raises(RecordError, match="not a database") as caught:
        open_store(str(path))
    assert "TXLPLAN_STORE" in caught.value.hint


def test_a_store_of_another_layout_is_refused(tmp_path):
    path = tmp_path / "records.db"
    open_store(str(path))
    for version, says in ((99, "too new"), (0, "too old")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE txlplan_layout SET version = ?", (version,))
        connection.close()
        with pytest.raises(RecordError, match=says):
            open_store(str(path))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("oracel://somewhere/x", "unknown kind of database"),
        ("postgresql+pg8000://ada:secret@nowhere/x", "not installed"),
        ("://", "not a database URL"),
        ("/proc/nowhere/records.db", "cannot be made"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url, says):
    with pytest.raises(RecordError, match=says) as caught:
        open_store(url)
    assert "secret" not in caught.value.message


def test_a_record_of_a_newer_txlplan_in_the_store_is_named(tmp_path):
    path = tmp_path / "records.db"
    open_store(str(path)).put(make_record(1, id="future"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE txlplan_records SET document = json_set(document, '$.schema_version', 7)")
    connection.close()
    with pytest.raises(RecordError, match="record future: schema_version 7 is too new"):
        open_store(str(path)).list()


def test_sqlalchemy_loads_only_when_a_store_is_opened(tmp_path):
    script = (
        "import sys, txlplan.records as r; assert 'sqlalchemy' not in sys.modules;"
        f"r.open_store({str(tmp_path / 'x.db')!r}); assert 'sqlalchemy' in sys.modules; r.Store"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = records.Nothing


def test_the_tables_are_valid_for_postgresql():
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    from txlplan.records._table import METADATA

    sql = "".join(str(CreateTable(table).compile(dialect=postgresql.dialect())) for table in METADATA.sorted_tables)
    assert "document JSON NOT NULL" in sql
    assert "peak_memory_bytes BIGINT" in sql
