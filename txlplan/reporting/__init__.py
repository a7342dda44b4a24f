"""Render what is known: reports on runs, as HTML, Markdown, CSV or JSON; their looks are templates in reports/."""

from txlplan.reporting._comparison import comparison_summary_html, write_comparison
from txlplan.reporting._comparison_data import comparison_document, comparison_rows
from txlplan.reporting._content import Report, build
from txlplan.reporting._facts import facts
from txlplan.reporting._format import percent, plan_text
from txlplan.reporting._proposal import proposal_rows, proposal_sentence, proposal_summary_html, write_proposal
from txlplan.reporting._validation import write_validation
from txlplan.reporting._verdict import Verdict, verdict
from txlplan.reporting._write import Format, write_report

__all__ = [
    "Format",
    "Report",
    "Verdict",
    "build",
    "comparison_document",
    "comparison_rows",
    "comparison_summary_html",
    "facts",
    "percent",
    "plan_text",
    "proposal_rows",
    "proposal_sentence",
    "proposal_summary_html",
    "verdict",
    "write_comparison",
    "write_proposal",
    "write_report",
    "write_validation",
]
