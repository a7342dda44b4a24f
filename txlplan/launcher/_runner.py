"""Runners: how a plan becomes processes, as data read from runners/<id>/runner.toml."""

from __future__ import annotations

import difflib
import re
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from txlplan import resources
from txlplan.config import parse_toml, read_toml
from txlplan.config._schema import STRICT
from txlplan.errors import ConfigError, InputError
from txlplan.plan_file import PlanFile

FILE_NAME = "runner.toml"
PLACEHOLDERS = ("python", "plan", "arguments", "n_devices", "threads", "run_directory")
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runner:
    """One runner.toml; runners/local explains what may stand in braces."""

    __pydantic_config__ = STRICT

    id: str
    """The name of its directory."""
    description: str
    command: tuple[str, ...]
    """The command line, part by part."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables set for the worker, beside those of the supervisor."""
    max_devices: int | None = None
    """Most devices that it serves; None: as many as the machine has."""

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command is empty")
        for text in (*self.command, *self.environment.values()):
            _check_placeholders(text)
        if "{plan}" not in " ".join(self.command):
            raise ValueError("command never names {plan}: the worker would not know what to run")


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What is started: a command line and the variables set for it."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def runner_paths() -> dict[str, Path]:
    """Id → runner.toml, sorted by id; the user's own hide the shipped ones."""
    found: dict[str, Path] = {}
    for root in reversed(resources.search_path("runners")):
        found |= {path.parent.name: path for path in root.glob(f"*/{FILE_NAME}")}
    return dict(sorted(found.items()))


def get_runner(name: str) -> Runner:
    """The runner of this id. Raises ConfigError for an unknown one (with the nearest) and for anything wrong in its file."""
    paths = runner_paths()
    if name not in paths:
        nearest = difflib.get_close_matches(name, paths, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(paths)}"
        raise ConfigError(f"unknown runner {name!r}", hint=hint)
    return parse_toml(Runner, {"id": name, **read_toml(paths[name])}, str(paths[name]))


def copy_runner(name: str, *, new_name: str | None = None) -> Path:
    """Copy a shipped runner's directory into the user's runners, to be edited there. Never overwrites one."""
    source = resources.shipped("runners") / get_runner(name).id
    if not source.is_dir():
        source = runner_paths()[name].parent
    wanted = name if new_name is None else new_name
    if not _NAME.fullmatch(wanted):
        raise InputError(f"{wanted!r} is not a name", hint="use letters, digits, dots, dashes and underscores")
    target = resources.user("runners") / wanted
    if target.exists():
        raise InputError(f"{target} exists already", hint="edit that one, or give another name with --as")
    shutil.copytree(source, target)
    return target / FILE_NAME


def launch(runner: Runner, plan_file: PlanFile, *, plan_path: Path, arguments: Sequence[str] = ()) -> Launch:
    """The command line and environment that run `plan_file`, written at `plan_path`.

    Raises InputError when the plan needs more devices than the runner serves.
    """
    plan = plan_file.plan
    if runner.max_devices is not None and plan.n_devices > runner.max_devices:
        raise InputError(
            f"runner {runner.id!r} serves {runner.max_devices} device(s), the plan needs {plan.n_devices}",
            hint="use `--runner torchrun`, or plan for one device with `--devices 1`",
        )
    values = {
        "python": sys.executable,
        "plan": str(plan_path),
        "n_devices": str(plan.n_devices),
        "threads": str(plan.threads or ""),
        "run_directory": plan_file.run.directory,
    }
    command: list[str] = []
    for part in runner.command:
        command += arguments if part == "{arguments}" else [part.format(**values)]
    unset = {name for name, text in runner.environment.items() if plan.threads is None and "threads" in _named(text)}
    environment = {name: text.format(**values) for name, text in runner.environment.items() if name not in unset}
    return Launch(command=tuple(command), environment=environment)


def _named(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


def _check_placeholders(text: str) -> None:
    try:
        named = _named(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}; a literal brace is written twice") from None
    for name in named:
        if name not in PLACEHOLDERS:
            nearest = difflib.get_close_matches(name, PLACEHOLDERS, n=1, cutoff=0.4)
            advice = f"did you mean {{{nearest[0]}}}?" if nearest else f"known: {', '.join(PLACEHOLDERS)}"
            raise ValueError(f"{text!r} names {{{name}}}, which is unknown; {advice}")
        if name == "arguments" and text != "{arguments}":
            raise ValueError(f"{text!r}: {{arguments}} must be a part of its own in 'command'")
