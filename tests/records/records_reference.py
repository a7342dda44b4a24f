"""Write docs/reference/records.md from the docstrings of the fields: `python tests/records/records_reference.py`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from pathlib import Path
from typing import Any

from txlplan.estimates import Estimate, Range, Term
from txlplan.hardware import DeviceProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.records import SCHEMA_VERSION, Environment, LossPoint, Record
from txlplan.workload import Optimization, Workload

PATH = Path(__file__).parents[2] / "docs" / "reference" / "records.md"
PARTS = (Record, Workload, ModelConfig, Optimization, Plan, DeviceProfile, Environment, Estimate, Range, Term, LossPoint)
PLAIN = {
    "learning_rate": "The highest of the schedule.",
    "betas": "Decay of the first and second moments (Adam, AdamW, LAMB).",
    "epsilon": "Added to the denominator of an update.",
    "weight_decay": "Per unit of learning rate.",
    "schedule": "How the learning rate changes after warm-up.",
    "warmup_steps": "Steps over which the learning rate rises from zero.",
    "data_parallel": "Replicas that each compute a part of the batch.",
    "tensor_parallel": "Devices that each layer is split over.",
    "pipeline_parallel": "Stages that the layers are split into.",
    "context_parallel": "Devices that each sequence is split over.",
    "compile": "Whether the module is compiled.",
    "mfu": "Model FLOPs utilisation: model FLOP/s over peak FLOP/s of the precision.",
    "terms": "What the step time and the peak memory are sums of.",
    "model": "The shape of the model.",
    "task": "What is done with it.",
    "objective": "What the planner makes best.",
    "deadline_s": "The planner's limit on time.",
    "budget_usd": "The planner's limit on cost.",
    "optimization": "How parameters are updated.",
    "attention": "The variant of attention.",
    "head": "What stands on the last layer.",
    "activation": "Of the feed-forward layer.",
    "norm": "Layer normalisation after (post) or before (pre) each part of a layer.",
    "dropout": "Probability.",
    "init_std": "Standard deviation of the initial weights.",
    "sources": "Source by key.",
    "notes": "For people.",
    "vocab_size": "Tokens that there are.",
    "precision": "What products are computed in.",
    "value": "In the unit of its quantity: seconds or bytes (of a range: the middle).",
    "low": "Lower end of the 80 % interval.",
    "high": "Upper end of the 80 % interval.",
    "formula": "How it was computed.",
    "provenance": "Where its figures come from.",
    "quantity": "What it is a part of.",
    "step_s": "Time of one step.",
    "micro_batch": "Sequences per device per micro-batch.",
    "optimizer": "The rule that updates parameters.",
    "vendor": "Who makes it.",
    "n_layer": "Layers.",
    "d_model": "Width of a layer's input and output.",
    "n_head": "Attention heads of a layer.",
    "d_head": "Width of one head.",
    "id": "A name, unique among its kind.",
    "name": "As people write it.",
    "kind": "What it is.",
}
"""For fields whose name says it: they have no docstring."""
INTRODUCTION = f"""# Records

One run, trial or benchmark repeat is one record: a self-contained document with everything needed to compare it later. This
page specifies every field of schema version {SCHEMA_VERSION}. It is made from the docstrings of the fields
(`python tests/records/records_reference.py`), and a test keeps it so.

## The rules

- Numbers are in SI base units, and the unit is in the name: `_s`, `_bytes`, `_bytes_per_s`, `_flops_per_s`, `_w`, `_j`, `_usd`.
- What is unknown is `null`: never 0, -1, NaN or infinity. A document with NaN or infinity is refused.
- An unknown key is an error that names it and the nearest valid one.
- `schema_version` comes first in every check, and a document without it, with an older or with a newer one is refused, each
  with its own message.
- A failed run is a record too: `outcome` says how it ended and `message` why.
- An estimate is stored before the run that it predicts, and never changed after.

## The store

Records lie in one SQLite database, `records.db` in the user's data directory. `TXLPLAN_STORE` names another: a file path,
or any database URL that SQLAlchemy knows (`postgresql+psycopg://ada@db.example.org/txlplan`; its driver is installed apart).

SQLite runs in write-ahead mode with `synchronous=FULL`: several processes may write at once, and what a command reports as
saved is on disk. Table `txlplan_records` has a column for each thing to filter by (`id`, `schema_version`, `kind`, `parent`,
`created_at`, `finished_at`, `outcome`, `task`, `model`, `device`, `n_devices`, `system`, `stack`, `precision`, `hostname`,
`tokens_per_s`, `peak_memory_bytes`) and the whole document as JSON in `document`, which alone is read back. Table
`txlplan_layout` holds the version of these tables.

A run whose supervising process is gone without a word is closed as `failed`, "interrupted", by the next command that looks.

## Files

`txlplan records export FILE.jsonl` writes one document a line: nothing is lost.

`txlplan records export FILE.csv` writes flat columns for a spreadsheet and the whole document in the last column, `document`.
Import reads that column and no other: an edit in a flat column changes nothing, and a file without it is refused. Some
spreadsheets cut a cell at 32,767 characters when they save; a document cut so is refused by line, so keep the JSON Lines too.
Text that a spreadsheet would run as a formula gets an apostrophe in front, in the flat columns only.

`txlplan records import FILE` adds what the file holds and replaces what has the same id. A corrupt line is reported with file
and line number and nothing is imported, unless `--skip-corrupt` takes the rest.
"""


def field_documentation(cls: type[Any]) -> dict[str, str]:
    """Field → its docstring, on one line; fields without one are left out."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(after.value.value.split())
    return found


def markdown() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(_section(cls) for cls in PARTS)


def _section(cls: type[Any]) -> str:
    documented = field_documentation(cls)
    hints = typing.get_type_hints(cls)
    lines = [f"\n## {cls.__name__}\n", f"{cell((inspect.getdoc(cls) or '').splitlines()[0])}\n"]
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        meaning = documented.get(field.name) or PLAIN.get(field.name) or titled(field.name)
        lines.append(f"| `{field.name}` | {cell(type_text(hints[field.name]))} | {default(field)} | {cell(meaning)} |")
    return "\n".join(lines) + "\n"


def titled(name: str) -> str:
    """What a field's name says."""
    return name.replace("_", " ").capitalize() + "."


def type_text(hint: Any) -> str:
    """As JSON people write it."""
    if typing.get_origin(hint) is typing.Union:
        return " | ".join(type_text(item) for item in typing.get_args(hint))
    text = inspect.formatannotation(hint).replace("NoneType", "null").replace("None", "null")
    text = re.sub(r"\b(?:[a-z_]+\.)+([A-Z])", r"\1", text)
    text = re.sub(r"Literal\[([^\]]*)\]", lambda match: match[1].replace(", ", " | ").replace("'", '"'), text)
    return text.replace("tuple[", "list[").replace(", ...]", "]").replace("Mapping[", "object[")


def default(field: dataclasses.Field[Any]) -> str:
    """What a field is where nothing is said."""
    if field.default is not dataclasses.MISSING:
        return "`null`" if field.default is None else f"`{field.default!r}`".replace("'", '"').replace("()", "[]")
    return "required" if field.default_factory is dataclasses.MISSING else "defaults"


def cell(text: str) -> str:
    """Of a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(markdown(), encoding="utf-8")
    sys.stdout.write(f"{PATH}\n")
