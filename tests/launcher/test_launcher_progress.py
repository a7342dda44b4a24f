"""Totals of events, and what the live view makes of them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.engine.events import Evaluated, Evaluating, Generated, Saved, Started, Step, Streamed
from txlplan.estimates import Estimate
from txlplan.launcher import LiveView, Progress
from txlplan.launcher._outcome import ending
from txlplan.launcher._progress import thinned
from txlplan.records import LossPoint


def step(number: int, step_s: float = 0.5, loss: float | None = 2.0) -> Step:
    return Step(step=number, step_s=step_s, tokens=100, loss=loss, memory_bytes=2**20)


def test_rate_leaves_warm_up_out() -> None:
    progress = Progress(warmup_steps=2)
    for number, step_s in enumerate((9.0, 9.0, 0.5), 1):
        assert progress.tokens_per_s is None
        progress.add(step(number, step_s))
    assert progress.tokens_per_s == 200.0


def test_time_left_is_at_the_pace_of_the_latest_steps() -> None:
    progress = Progress(warmup_steps=0)
    progress.add(Started(process_id=1, world_size=1, step=10, total_steps=100))
    assert progress.remaining_s is None
    for number in range(11, 61):
        progress.add(step(number, 0.25))
    assert progress.remaining_s == pytest.approx(40 * 0.25)


def test_texts_of_several_rows_stand_in_their_order() -> None:
    progress = Progress(warmup_steps=0)
    for event in (Streamed(row=1, text="b"), Generated(text="a\n"), Generated(text="b")):
        progress.add(event)
    assert progress.text == "a\n\n-----\nb"
    assert progress.finished is None


def test_loss_that_is_not_finite_is_left_out_of_the_curve() -> None:
    progress = Progress(warmup_steps=0)
    progress.add(step(1, loss=float("nan")))
    assert progress.losses() == ()


def test_texts_of_all_rows_are_kept_in_their_order() -> None:
    progress = Progress(warmup_steps=0)
    assert progress.text is None
    texts = ("", "It was\nnight.", "It rained.")
    for text in texts:
        progress.add(Generated(text=text))
    assert progress.text == "\n-----\n".join(texts)


@given(st.integers(0, 5000), st.integers(1, 50))
def test_thinning_keeps_end_and_mean(count: int, most: int) -> None:
    points = [LossPoint(step=number, split="train", loss=float(number)) for number in range(1, count + 1)]
    kept = thinned(points, most)
    assert len(kept) <= most
    if points:
        assert kept[-1].step == points[-1].step
    if kept and count % len(kept) == 0:
        assert sum(point.loss for point in kept) / len(kept) == pytest.approx(sum(p.loss for p in points) / count)


def test_line_sets_measured_beside_predicted(make_estimate: Callable[..., Estimate]) -> None:
    view = LiveView(warmup_steps=1, estimate=make_estimate(tokens_per_s=250.0), stream=io.StringIO(), bits=True)
    view.on_event(Started(process_id=1, world_size=1, step=0, total_steps=10))
    for number in (1, 2):
        view.on_event(step(number))
    assert view.line() == (
        "step 2/10 · loss 2.000 (2.885 bpc) · 200 tokens/s (predicted 250 tokens/s) · 1.00 MiB · 4.00 s left"
    )


def test_plain_lines_are_sparse_and_tell_what_matters() -> None:
    stream = io.StringIO()
    with LiveView(warmup_steps=0, estimate=None, stream=stream) as view:
        for number in range(1, 200):
            view.on_event(step(number))
        view.on_event(Evaluating(step=199, split="valid", segments=40))
        view.on_event(Evaluated(step=199, split="valid", loss=1.0, perplexity=2.7, bits_per_character=1.4))
        view.on_event(Saved(step=199, path="/run/checkpoints/step-000000199"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == "starting the worker"
    assert lines[2] == "step 199: scoring valid (40 segments)"
    assert lines[3] == "step 199: valid loss 1.000, perplexity 2.70, 1.400 bits per character"
    assert lines[4] == "step 199: checkpoint /run/checkpoints/step-000000199"
    assert "ppl 7.4" in lines[5]


def test_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with LiveView(warmup_steps=0, estimate=None, stream=stream, label="trial 1") as view:
        view.on_event(step(1))
        view.on_event(Saved(step=1, path="/here"))
    assert "checkpoint /here" in stream.getvalue()
    assert "trial 1 · step 1" in stream.getvalue()


@pytest.mark.parametrize(
    ("status", "asked", "memory", "outcome", "said"),
    [
        (-9, False, True, "oom", "the kernel killed the worker"),
        (1, False, True, "oom", "the kernel killed the worker"),
        (-9, False, False, "failed", "SIGKILL"),
        (-11, False, False, "failed", "signal SIGSEGV"),
        (2, False, False, "failed", "exit code 2"),
        (0, False, False, "failed", "exit code 0"),
        (-15, True, False, "stopped", "before the worker could end it"),
    ],
)
def test_ending_of_a_worker_that_said_nothing(status: int, asked: bool, memory: bool, outcome: str, said: str) -> None:
    end = ending(Progress(warmup_steps=0), status=status, asked_to_stop=asked, killed_for_memory=memory, log="the log's end")
    assert end.outcome == outcome
    assert said in end.message


def test_run_that_is_cut_short_counts_its_own_steps() -> None:
    view = LiveView(warmup_steps=0, estimate=None, stream=io.StringIO(), steps=30)
    view.on_event(Started(process_id=1, world_size=1, step=100, total_steps=10_000))
    view.on_event(step(101))
    assert view.line().startswith("step 101/130 ")
    assert view.line().endswith("14.5 s left")


def test_last_line_is_written_once() -> None:
    stream = io.StringIO()
    with LiveView(warmup_steps=0, estimate=None, stream=stream) as view:
        view.on_event(step(1))
    assert [line.split(" · ")[0] for line in stream.getvalue().splitlines()] == ["starting the worker", "step 1"]
