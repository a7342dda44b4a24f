"""A worker that speaks the protocol without torch, started by a runner of the user's own: supervision is tested on real
processes, quickly."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from txlplan import resources
from txlplan.estimates import Estimate, Range
from txlplan.hardware import DeviceProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings
from txlplan.workload import Workload

PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from txlplan.engine import events
directory = Path(sys.argv[1]).parent
stream = (directory / events.FILE_NAME).open("a")
stopped = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopped.append(1))
def tell(event): events.append(stream, event)
def start(step=0, total=5): tell(events.Started(process_id=os.getpid(), world_size=1, step=step, total_steps=total))
def step(number, step_s=0.5, loss=2.0):
    tell(events.Step(step=number, step_s=step_s, tokens=100, loss=loss, memory_bytes=1000))
def finish(outcome, message=""):
    tell(events.Finished(outcome=outcome, message=message, peak_memory_bytes=5000))
    sys.exit(4 if outcome in ("oom", "failed") else 0)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Callable[[str], None]:
    """`worker("start(); finish('ok')")`: what the next runs' worker does."""

    def install(body: str) -> None:
        script = tmp_path / "worker.py"
        root = str(Path(__file__).resolve().parents[2])
        script.write_text(PREAMBLE.format(root=root) + textwrap.dedent(body), encoding="utf-8")
        runner = resources.user("runners") / "scripted" / "runner.toml"
        runner.parent.mkdir(parents=True, exist_ok=True)
        runner.write_text(
            f'description = "a scripted worker"\ncommand = ["{{python}}", "{script}", "{{plan}}", "{{arguments}}"]\n'
        )

    return install


@pytest.fixture
def scripted_plan(tiny_model: ModelConfig, tmp_path: Path) -> PlanFile:
    """A plan that the scripted worker runs."""
    return PlanFile(
        system="local",
        stack="local",
        workload=Workload(model=tiny_model, tokens=500),
        plan=Plan(micro_batch=2),
        data=DataSettings(directory=str(tmp_path / "data")),
        run=RunSettings(directory=str(tmp_path / "run"), runner="scripted", warmup_steps=2),
    )


@pytest.fixture
def cpu() -> DeviceProfile:
    """A device, so that none needs to be detected."""
    return DeviceProfile(
        id="test-cpu",
        name="Test CPU",
        kind="cpu",
        vendor="test",
        architecture="test",
        memory_bytes=2**30,
        memory_bandwidth_bytes_per_s=1e10,
        peak_flops_per_s={"fp32": 1e11},
        cores=2,
    )


@pytest.fixture
def make_estimate() -> Callable[..., Estimate]:
    """`make_estimate(step_s=0.5, tokens_per_s=200.0, share=0.2)`: an estimate with a range of ± share."""

    def make(step_s: float = 0.5, tokens_per_s: float = 200.0, share: float = 0.2) -> Estimate:
        def around(value: float) -> Range:
            return Range(value=value, low=value * (1 - share), high=value * (1 + share))

        return Estimate(
            stack="local",
            step_s=around(step_s),
            tokens_per_s=around(tokens_per_s),
            peak_memory_bytes=around(5000.0),
            capacity_bytes=2**30,
            fits=True,
            flops_per_step=1e6,
            mfu=None,
            energy_j_per_step=None,
            terms=(),
            extrapolated=False,
        )

    return make
