"""The answer, in every form in which somebody may want it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txlplan.advice._scenario import Scenario
from txlplan.planner import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from txlplan.records import Record
    from txlplan.reporting import Format


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What `compare` found. In a notebook it shows itself as verdict and table."""

    scenario: Scenario
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """One sentence: what to take, what it takes, and how sure that is."""
        return self.comparison.verdict.sentence

    @property
    def best(self) -> str:
        """Label of the candidate that is recommended."""
        return self.comparison.verdict.best

    @property
    def probability(self) -> float | None:
        """That the recommended candidate really is the best; None where there is nothing to compare it with."""
        return self.comparison.verdict.probability

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of everything: what `txlplan compare --json` prints."""
        from txlplan.reporting import comparison_document

        return comparison_document(self.comparison, self.records())

    def to_frame(self) -> pd.DataFrame:
        """A row for every size of every candidate, the best candidate first; units are in the columns' names."""
        import pandas as pd

        from txlplan.reporting import comparison_rows

        return pd.DataFrame(comparison_rows(self.comparison))

    def to_html(self, path: str | Path) -> Path:
        """Write the whole answer as one offline HTML file, and give its path back."""
        return self.write(Path(path), format="html")

    def write(self, path: Path, *, format: Format) -> Path:  # noqa: A002
        """Write it as html, md, csv or json; records of such runs are set beside their predictions.

        Raises InputError where `path` cannot be written.
        """
        from txlplan.reporting import write_comparison

        return write_comparison(self.comparison, path, format=format, records=self.records())

    def records(self) -> tuple[Record, ...]:
        """Finished runs of the model and task on a device of a candidate, newest first: predicted against measured."""
        from txlplan.records import open_store

        workload = self.comparison.workload
        devices = {size.candidate.cluster.device.id for row in self.comparison.rows for size in row.sizes}
        known = open_store().list(outcome="ok", model=workload.model.id, task=workload.task)
        return tuple(record for record in known if record.device.id in devices and record.estimate)

    def _repr_html_(self) -> str:
        from txlplan.reporting import comparison_summary_html

        return comparison_summary_html(self.comparison)

    def __str__(self) -> str:
        return self.verdict
