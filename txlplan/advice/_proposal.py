"""A plan that is proposed, in every form in which somebody may want it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txlplan.advice._caveats import caveats
from txlplan.config import to_plain
from txlplan.estimates import Estimate
from txlplan.plan_file import Plan, PlanFile, write_plan_file
from txlplan.planner import Candidate, Choice, RunnerUp

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What `plan` found. In a notebook it shows itself as a sentence and a table."""

    target: Candidate
    """Cluster and stack that it was planned for."""
    choice: Choice
    """The plan with its estimate, the runners-up, and what was considered."""
    surer: RunnerUp | None
    """The best plan that fits at the high end of the range of its memory too, where the choice fits by its best figure only."""
    plan_file: PlanFile
    """What `txlplan run` takes."""

    @property
    def plan(self) -> Plan:
        """The plan offered."""
        return self.choice.plan

    @property
    def estimate(self) -> Estimate:
        """What it will take."""
        return self.choice.estimate

    @property
    def sentence(self) -> str:
        """The plan in one sentence: for what, on what, how fast."""
        from txlplan.reporting import proposal_sentence

        return proposal_sentence(self.target, self.plan_file, self.choice)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What its figures leave out, in sentences."""
        return caveats(self.plan_file.workload, self.target.cluster, self.choice, self.surer)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of everything: what `txlplan plan --json` prints beside the path."""
        return {
            "choice": to_plain(self.choice),
            "surer": to_plain(self.surer),
            "caveats": list(self.caveats),
            "plan_file": to_plain(self.plan_file),
        }

    def to_frame(self) -> pd.DataFrame:
        """A row for the plan offered and for each runner-up; units are in the columns' names."""
        import pandas as pd

        from txlplan.reporting import proposal_rows

        return pd.DataFrame(proposal_rows(self.choice))

    def to_html(self, path: str | Path) -> Path:
        """Write plan, terms, runners-up and what was not chosen as one offline HTML file, and give its path back."""
        from txlplan.reporting import write_proposal

        return write_proposal(self.target, self.plan_file, self.choice, Path(path), caveats=self.caveats)

    def write(self, path: str | Path) -> Path:
        """Write the plan file that `txlplan run` takes, and give its path back. Raises InputError where that cannot be."""
        write_plan_file(Path(path), self.plan_file)
        return Path(path)

    def _repr_html_(self) -> str:
        from txlplan.reporting import proposal_summary_html

        return proposal_summary_html(self.target, self.plan_file, self.choice)

    def __str__(self) -> str:
        return self.sentence
