"""Write docs/reference/files.md from the docstrings of the keys: `python tests/records/files_reference.py`."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from pathlib import Path
from typing import Any

from records_reference import PLAIN, cell, default, field_documentation, titled, type_text

from txlplan.benchmarks import Matrix
from txlplan.config._schema import toml_key
from txlplan.hardware import (
    CompiledTokenHost,
    DeviceProfile,
    EfficiencyPoint,
    Host,
    Link,
    Price,
    Spread,
    StackProfile,
    SystemProfile,
    TokenHost,
    TokenReading,
)
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, Sampling
from txlplan.units import Quantity
from txlplan.workload import Optimization, Workload

PATH = Path(__file__).parents[2] / "docs" / "reference" / "files.md"
FILES: dict[str, tuple[tuple[str, type[Any]], ...]] = {
    "plan.toml": (
        ("the top of the file", PlanFile),
        ("[workload]", Workload),
        ("[workload.optimization]", Optimization),
        ("[plan]", Plan),
        ("[data]", DataSettings),
        ("[run]", RunSettings),
        ("[sampling]", Sampling),
    ),
    "bench.toml": (("the whole file", Matrix),),
    "A model": (("profiles/models/ID.toml, and [workload.model] of a plan", ModelConfig),),
    "A device": (("profiles/devices/ID.toml", DeviceProfile),),
    "A system": (
        ("profiles/systems/ID.toml", SystemProfile),
        ("[intra_node], [inter_node]", Link),
        ("[host]", Host),
        ("[[prices]]", Price),
    ),
    "A stack": (
        ("profiles/stacks/ID.toml", StackProfile),
        ("[[efficiency]]", EfficiencyPoint),
        ("[[token_host]]", TokenHost),
        ("[[compiled_token_host]]", CompiledTokenHost),
        ("[[token_reading]]", TokenReading),
        ("[spread]", Spread),
    ),
}
INTRODUCTION = """# Every key of a file

Files that people write are TOML. A quantity is text with its unit (`"16 GiB"`, `"900 GB/s"`, `"2.6 us"`), and is refused
without one; a key that is unknown is refused with the nearest valid one. In a profile, `extends = "ID"` takes another as a
start. This page is made from the docstrings of the keys (`python tests/records/files_reference.py`), and a test keeps it so.
What `txlplan compare` reads is in [Every key of a comparison](comparison.md).

```sh
cat > bench.toml <<'TOML'
model = ["demo-bytes"]
micro_batch = [2, 4]
steps = 4
warmup_steps = 1
repeats = 1
TOML
txlplan bench bench.toml
txlplan hardware show dgx-1
```
"""


def markdown() -> str:
    """The whole page."""
    parts = [f"\n## {name}\n" + "".join(_section(*each) for each in several) for name, several in FILES.items()]
    return INTRODUCTION + "".join(parts)


def _section(where: str, cls: type[Any]) -> str:
    documented = field_documentation(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    summary = cell((inspect.getdoc(cls) or "").splitlines()[0])
    lines = [f"\n### {where}\n", f"{summary}\n", "| key | value | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        meaning = documented.get(field.name) or PLAIN.get(field.name) or titled(field.name)
        lines.append(f"| `{toml_key(field.name)}` | {_value(hints[field.name])} | {default(field)} | {cell(meaning)} |")
    return "\n".join(lines) + "\n"


def _value(hint: Any) -> str:
    """An example where the value has a unit, else its type."""
    found = _quantity(hint)
    return f'like `"{found.example}"`' if found else cell(type_text(hint))


def _quantity(hint: Any) -> Quantity | None:
    if typing.get_origin(hint) is typing.Annotated:
        return next((each for each in typing.get_args(hint) if isinstance(each, Quantity)), None)
    return next((found for each in typing.get_args(hint) if (found := _quantity(each))), None)


if __name__ == "__main__":
    PATH.write_text(markdown(), encoding="utf-8")
    sys.stdout.write(f"{PATH}\n")
