"""The event log is appended to after whatever its last writer left."""

from __future__ import annotations

from txlplan.engine import events
from txlplan.engine.event_log import EventLog
from txlplan.engine.events import Finished, Saved
from txlplan.engine.world import World

SAVED = Saved(step=1, path="checkpoints/step-000000001")
TORN = '{"event": "saved", "step": 2, "pa'


def test_a_torn_last_line_is_cut_off_before_the_log_goes_on(tmp_path):
    path = tmp_path / events.FILE_NAME
    EventLog(tmp_path, World()).emit(SAVED)
    with path.open("a") as stream:
        stream.write(TORN)
    assert events.read(path)[0] == [SAVED]
    offset = events.read(path)[1]
    EventLog(tmp_path, World()).emit(SAVED)
    assert events.read(path)[0] == [SAVED, SAVED]
    assert events.read(path, offset)[0] == [SAVED]


def test_a_failure_after_a_torn_line_is_told_once(tmp_path):
    """Whichever process opens the log first, and whichever fails."""
    path = tmp_path / events.FILE_NAME
    path.write_text(TORN)
    second = EventLog(tmp_path, World(size=2, rank=1))
    assert path.read_text() == TORN, "only the first process writes before there is a failure"
    first = EventLog(tmp_path, World(size=2, rank=0))
    failed = Finished(outcome="failed", message="the first")
    first.fail(failed)
    second.fail(Finished(outcome="failed", message="the second"))
    assert events.read(path)[0] == [failed]
