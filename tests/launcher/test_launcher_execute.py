"""Supervision of real processes: every way in which a worker can end, and what the record says of it."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from txlplan.engine import events
from txlplan.errors import ConfigError, InputError, RunFailedError
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.launcher import PLAN_NAME, execute, prepared
from txlplan.plan_file import Plan, PlanFile, read_plan_file
from txlplan.records import Record, open_store

Install = Callable[[str], None]


def run(plan_file: PlanFile, cpu: DeviceProfile, **options: object) -> Record:
    return execute(plan_file, **{"estimate": None, "device": cpu, **options})  # type: ignore[arg-type]


def stored(record: Record) -> Record:
    return open_store().get(record.id)


def test_good_run_is_recorded_whole(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: Callable[..., Estimate]
) -> None:
    worker("""
        start(total=4)
        for number, step_s in enumerate((9.0, 3.0, 0.5, 0.25), 1):
            step(number, step_s, loss=3.0 - number / 10)
        tell(events.Evaluated(step=4, split="valid", loss=2.5, perplexity=12.2, bits_per_character=3.6))
        finish("ok")
    """)
    seen: list[events.Event] = []
    record = run(scripted_plan, cpu, estimate=make_estimate(), on_event=seen.append)
    assert (record.outcome, record.message) == ("ok", "")
    assert record.step_s == (9.0, 3.0, 0.5, 0.25)
    assert record.warmup_steps == 2
    assert record.tokens_per_s == pytest.approx(200 / 0.75)
    assert (record.tokens_per_step, record.peak_memory_bytes) == (100, 5000)
    assert [(p.step, p.split) for p in record.losses] == [(1, "train"), (2, "train"), (3, "train"), (4, "train"), (4, "valid")]
    assert (record.perplexity, record.bits_per_character) == (12.2, 3.6)
    assert record.estimate == make_estimate()
    assert record.finished_at is not None
    assert record.device == cpu
    assert [type(event).__name__ for event in seen] == ["Started", *["Step"] * 4, "Evaluated", "Finished"]
    assert stored(record) == record
    written = read_plan_file(Path(scripted_plan.run.directory) / PLAN_NAME)
    assert dataclasses.replace(written, data=scripted_plan.data) == scripted_plan


def test_record_is_running_with_its_estimate_before_the_worker_starts(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: Callable[..., Estimate]
) -> None:
    worker("start(); step(1); finish('ok')")
    found: list[Record] = []
    run(scripted_plan, cpu, estimate=make_estimate(), on_event=lambda _: found.extend(open_store().list()))
    assert found[0].outcome == "running"
    assert found[0].estimate == make_estimate()
    assert found[0].process_id == os.getpid()


def test_steps_and_resume_reach_the_worker(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("start(); finish('failed', ' '.join(sys.argv[2:]))")
    assert run(scripted_plan, cpu, steps=7, resume=True).message == "--steps 7 --resume"


def test_failure_that_the_worker_reports(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("start(); step(1); finish('failed', 'the loss became nan in step 2')")
    record = run(scripted_plan, cpu)
    assert (record.outcome, record.message) == ("failed", "the loss became nan in step 2")
    assert len(record.step_s) == 1


def test_out_of_memory_that_the_worker_reports(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("start(); finish('oom', 'out of memory: 2 GiB wanted')")
    record = run(scripted_plan, cpu)
    assert (record.outcome, record.peak_memory_bytes) == ("oom", 5000)


def test_memory_of_a_worker_that_made_no_step_is_no_peak_of_the_run(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile
) -> None:
    """But its energy is the run's."""
    worker("""
        start()
        tell(events.Finished(outcome="stopped", message="at step 0", peak_memory_bytes=5000, energy_j=7.0))
    """)
    record = run(scripted_plan, cpu)
    assert (record.outcome, record.step_s, record.peak_memory_bytes) == ("stopped", (), None)
    assert record.energy_j == 7.0


def test_crash_keeps_the_end_of_its_log(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("start(); step(1); raise SystemError('sprocket')")
    record = run(scripted_plan, cpu)
    assert record.outcome == "failed"
    assert "exit code 1 after step 1" in record.message
    assert "SystemError: sprocket" in record.message


def test_worker_killed_with_sigkill(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("start(); step(1); os.kill(os.getpid(), signal.SIGKILL)")
    record = run(scripted_plan, cpu)
    assert record.outcome in ("failed", "oom")
    assert "killed" in record.message
    assert record.step_s == (0.5,)


def test_unfinished_last_line_of_a_killed_worker_is_ignored(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile
) -> None:
    worker('start(); step(1); stream.write(\'{"event": "st\'); stream.flush(); os.kill(os.getpid(), 9)')
    assert len(run(scripted_plan, cpu).step_s) == 1


def test_run_goes_on_after_an_unfinished_last_line(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path
) -> None:
    worker('start(); step(1); stream.write(\'{"event": "st\'); stream.flush(); os.kill(os.getpid(), 9)')
    run(scripted_plan, cpu)
    worker("""
        from txlplan.engine.event_log import EventLog
        from txlplan.engine.world import World
        tell = EventLog(directory, World()).emit
        start(step=1); step(2); finish('ok')
    """)
    second = run(scripted_plan, cpu, resume=True)
    assert (second.outcome, second.step_s) == ("ok", (0.5,))
    assert len(events.read(tmp_path / "run" / events.FILE_NAME)[0]) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_cleanly(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, number: signal.Signals) -> None:
    worker("""
        start(total=1000)
        for n in range(1, 1000):
            step(n); time.sleep(0.02)
            if stopped:
                tell(events.Saved(step=n, path="checkpoints/x"))
                finish("stopped", f"stopped at step {n}")
    """)
    sent: list[int] = []

    def interrupt(event: events.Event) -> None:
        if isinstance(event, events.Step) and event.step >= 3 and not sent:
            sent.append(1)
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    told: list[int] = []
    record = run(scripted_plan, cpu, on_event=interrupt, on_stop=lambda: told.append(1))
    assert told == [1]
    assert record.outcome == "stopped"
    assert record.message.startswith("stopped at step")
    assert signal.getsignal(number) is before


def test_second_signal_kills_a_worker_that_does_not_stop(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("""
        start(); step(1)
        while True: time.sleep(0.05)
    """)

    def interrupt(event: events.Event) -> None:
        if isinstance(event, events.Step):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    record = run(scripted_plan, cpu, on_event=interrupt)
    assert record.outcome == "stopped"
    assert "before the worker could end it" in record.message


def test_error_of_the_supervisor_stops_the_worker_and_closes_the_record(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path
) -> None:
    worker("""
        start(); step(1)
        while not stopped: time.sleep(0.02)
        (directory / "was stopped").touch()
    """)

    def fail(event: events.Event) -> None:
        raise ZeroDivisionError("in the view")

    with pytest.raises(ZeroDivisionError):
        run(scripted_plan, cpu, on_event=fail)
    (record,) = open_store().list()
    assert record.outcome == "failed"
    assert "in the view" in record.message
    assert (tmp_path / "run" / "was stopped").exists()


def test_directory_that_holds_a_run_is_refused_without_resume(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile
) -> None:
    worker("start(); step(1); finish('ok')")
    run(scripted_plan, cpu)
    with pytest.raises(InputError, match="holds a run already") as caught:
        run(scripted_plan, cpu)
    assert "--resume" in str(caught.value.hint)


def test_directory_of_something_else_is_refused_and_left_as_it_is(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    worker("start(); finish('ok')")
    with pytest.raises(InputError, match=r"is no run directory: it holds 'thesis\.tex'"):
        run(scripted_plan, cpu)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_directory_with_a_plan_or_trials_is_taken(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path
) -> None:
    (tmp_path / "run" / "trials" / "1").mkdir(parents=True)
    (tmp_path / "run" / "plan.toml").write_text("")
    worker("start(); finish('ok')")
    assert run(scripted_plan, cpu).outcome == "ok"


def test_resumed_run_links_to_the_one_before_and_keeps_its_curve(
    worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: Callable[..., Estimate]
) -> None:
    worker("start(); step(1, loss=5.0); step(2, loss=4.0); step(3, loss=3.0); os.kill(os.getpid(), 9)")
    first = run(scripted_plan, cpu, estimate=make_estimate(step_s=0.125))
    worker("start(step=2); step(3, loss=3.5); finish('ok')")
    second = run(scripted_plan, cpu, resume=True)
    assert second.parent == first.id
    assert [(point.step, point.loss) for point in second.losses] == [(1, 5.0), (2, 4.0), (3, 3.5)]
    assert second.step_s == (0.5,)
    assert second.estimate == first.estimate
    assert stored(first).outcome == "failed"


def test_two_runs_in_one_directory_are_refused(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    worker("start(); step(1); time.sleep(1); finish('ok')")
    refused: list[InputError] = []

    def again(event: events.Event) -> None:
        if isinstance(event, events.Step):
            try:
                run(scripted_plan, cpu, resume=True)
            except InputError as error:
                refused.append(error)

    assert run(scripted_plan, cpu, on_event=again).outcome == "ok"
    assert "in use" in refused[0].message


def test_unsupported_plan_says_so_before_anything_starts(scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path) -> None:
    tensor = dataclasses.replace(scripted_plan, plan=Plan(micro_batch=1, tensor_parallel=2))
    with pytest.raises(InputError, match="tensor_parallel = 2"):
        run(tensor, cpu)
    assert not (tmp_path / "run").exists()


def test_unknown_runner_is_refused(scripted_plan: PlanFile) -> None:
    with pytest.raises(ConfigError, match="unknown runner 'scripted'"):
        prepared(scripted_plan)


def test_program_that_does_not_exist(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile) -> None:
    from txlplan import resources

    worker("")
    path = resources.user("runners") / "scripted" / "runner.toml"
    path.write_text('description = "x"\ncommand = ["/no/such/program", "{plan}"]\n')
    with pytest.raises(RunFailedError, match="/no/such/program"):
        run(scripted_plan, cpu)
    assert open_store().list()[0].outcome == "failed"


def test_no_process_is_left_behind(worker: Install, scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path) -> None:
    worker("""
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        (directory / "child").write_text(str(child.pid))
        start(); time.sleep(1.0); step(1); finish('ok')
    """)
    run(scripted_plan, cpu)
    child = int((tmp_path / "run" / "child").read_text())
    time.sleep(0.1)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
