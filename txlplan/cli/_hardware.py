"""`txlplan hardware`: what exists, what this machine has, and what it reaches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from txlplan import files, resources, units
from txlplan.cli._hardware_add import add
from txlplan.cli._hardware_show import show
from txlplan.cli._output import JsonOption, Output
from txlplan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.detection._timing import Progress
    from txlplan.hardware import DeviceProfile, StackProfile

_DTYPES = ("fp32", "tf32", "fp16", "bf16")

hardware = typer.Typer(
    no_args_is_help=True, help="Devices, systems and stacks: list and show profiles, detect and measure this machine."
)


def register(app: typer.Typer) -> None:
    """Add the command group to the application."""
    hardware.command("show")(show)
    hardware.command("add")(add)
    app.add_typer(hardware, name="hardware")


@hardware.command("list")
def list_profiles(
    systems: bool = typer.Option(False, "--systems", help="List systems (nodes with devices, links and prices)."),
    stacks: bool = typer.Option(False, "--stacks", help="List software stacks."),
    as_json: JsonOption = False,
) -> None:
    """List the profiles of devices (or of systems, or of stacks): shipped ones and your own.

    Example: txlplan hardware list --systems
    """
    if systems and stacks:
        raise InputError("--systems and --stacks exclude each other", hint="run `txlplan hardware list` once for each")
    output = Output(as_json)
    header, rows = _system_rows() if systems else _stack_rows() if stacks else _device_rows()
    keys = [name.lower().replace(" ", "_") for name in header]
    document = [dict(zip(keys, values, strict=True)) for values, _ in rows]
    output.document(document, lambda console: _print_table(console, header, [cells for _, cells in rows]))
    output.next_step(f"txlplan hardware show {rows[0][0][0]}" if rows else "txlplan hardware probe")


_Row = tuple[list[Any], list[str]]
"""Plain values for JSON, text for a table."""


def _device_rows() -> tuple[list[str], list[_Row]]:
    from txlplan.hardware import devices

    header = ["id", "memory bytes", "bandwidth bytes per s", *(f"peak {dtype} flops per s" for dtype in _DTYPES), "provenance"]
    rows = []
    for each in devices.all():
        peaks = [each.peak(dtype) for dtype in _DTYPES]
        texts = [units.format_flops_per_s(peak) if peak else "–" for peak in peaks]
        sizes = [units.format_bytes(each.memory_bytes), units.format_bytes_per_s(each.memory_bandwidth_bytes_per_s)]
        rows.append(
            (
                [each.id, each.memory_bytes, each.memory_bandwidth_bytes_per_s, *peaks, each.provenance],
                [each.id, *sizes, *texts, each.provenance],
            )
        )
    return header, rows


def _system_rows() -> tuple[list[str], list[_Row]]:
    from txlplan.hardware import systems

    header = ["id", "device", "n devices", "intra node", "on demand usd per h", "purchase usd", "provenance"]
    rows = []
    for each in systems.all():
        rent, purchase = each.price("on-demand"), each.price("purchase")
        hourly, price = rent.rent_usd_per_h if rent else None, purchase.purchase_usd if purchase else None
        link = each.intra_node.kind if each.intra_node else None
        rows.append(
            (
                [each.id, each.device, each.n_devices, link, hourly, price, each.provenance],
                [
                    each.id, each.device, str(each.n_devices), link or "–", units.format_usd(hourly), units.format_usd(price),
                    each.provenance,
                ],
            )
        )  # fmt: skip
    return header, rows


def _stack_rows() -> tuple[list[str], list[_Row]]:
    from txlplan.hardware import stacks

    header = ["id", "family", "version", "implementation", "measured on", "points", "provenance"]
    rows = []
    for each in stacks.all():
        values = [
            each.id,
            each.family,
            each.version,
            each.implementation,
            each.measured_device,
            len(each.efficiency),
            each.provenance,
        ]
        rows.append((values, ["–" if value is None else str(value) for value in values]))
    return header, rows


_TITLES = {
    "memory bytes": "memory", "bandwidth bytes per s": "bandwidth", "n devices": "devices", "intra node": "link",
    "on demand usd per h": "on-demand/h", "purchase usd": "purchase",
} | {f"peak {dtype} flops per s": dtype for dtype in _DTYPES}  # fmt: skip


def _print_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        table.add_column(_TITLES.get(name, name), no_wrap=index == 0)
    for cells in rows:
        table.add_row(*cells)
    console.print(table)


@hardware.command("detect")
def detect_devices(as_json: JsonOption = False) -> None:
    """Name this machine's devices and the profile that describes each.

    Example: txlplan hardware detect --json
    """
    from txlplan.config import to_plain
    from txlplan.detection import detect

    output = Output(as_json)
    found = detect()
    document = {
        "devices": [to_plain(device) for device in found.devices],
        "driver": found.driver,
        "usable_cpus": found.cpu.usable_cpus,
        "notes": list(found.notes),
    }

    def render(console: Console) -> None:
        header = ["device", "profile", "memory bytes", "bandwidth bytes per s", "fp32 peak", "provenance"]
        rows = [
            [
                device.name, device.id, units.format_bytes(device.memory_bytes),
                units.format_bytes_per_s(device.memory_bandwidth_bytes_per_s),
                units.format_flops_per_s(device.peak("fp32")), device.provenance,
            ]
            for device in found.devices
        ]  # fmt: skip
        _print_table(console, header, rows)
        console.print(f"usable CPUs: {found.cpu.usable_cpus} of {found.cpu.logical_cpus}", highlight=False)

    output.document(document, render)
    for note in found.notes:
        output.say(f"note: {note}")
    output.next_step("txlplan hardware probe")


@hardware.command("probe")
def probe_machine(
    write: bool = typer.Option(True, "--write/--no-write", help="Keep the result as your own profiles."),
    seconds: float = typer.Option(
        52.0, "--seconds", min=1.0, max=3600.0, help="Time to take: more of it steadies the figures."
    ),
    as_json: JsonOption = False,
) -> None:
    """Measure this machine in about a minute and keep the result as your own profiles.

    Measured are matrix products and the other operations of a training step by dtype, size and threads, the bandwidth of
    copying and of reading weights, host time per operation and the memory of a worker process. Run it on an otherwise idle
    machine.

    Example: txlplan hardware probe
    """
    from txlplan.config import to_plain
    from txlplan.detection import probe, write_profiles

    output = Output(as_json)
    if write and (wrong := files.unwritable(resources.user("profiles"))):
        raise InputError(f"the result could not be kept: {wrong}", hint="mend that, set XDG_CONFIG_HOME, or add --no-write")
    with _progress() as progress:
        result = probe(progress, budget_s=seconds)
    paths = write_profiles(result) if write else ()
    document = {
        "device": to_plain(result.device),
        "system": to_plain(result.system),
        "stack": to_plain(result.stack),
        "took_s": round(result.took_s, 1),
        "notes": list(result.notes),
        "files": [str(path) for path in paths],
    }
    output.document(document, lambda console: _print_probe(console, result.device, result.stack))
    for note in result.notes:
        output.say(f"note: {note}")
    for path in paths:
        output.say(f"wrote {path}")
    output.next_step(f"txlplan hardware show {result.device.id}")


def _print_probe(console: Console, device: DeviceProfile, stack: StackProfile) -> None:
    reading = stack.reading_bandwidth_bytes_per_s
    rows = [
        *([f"{dtype} matrix product", units.format_flops_per_s(rate)] for dtype, rate in device.peak_flops_per_s.items()),
        ["copy bandwidth", units.format_bytes_per_s(device.memory_bandwidth_bytes_per_s)],
        *([["reading bandwidth", units.format_bytes_per_s(reading)]] if reading else []),
        [
            "host time per operation",
            f"{units.format_s(stack.host_op_s)} forward, {units.format_s(stack.host_backward_op_s)} backward",
        ],
        ["memory of an empty worker", units.format_bytes(stack.context_bytes)],
        ["efficiency points", str(len(stack.efficiency))],
    ]
    _print_table(console, ["measured", device.name], rows)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal; otherwise one plain line a round."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def plain(what: str, share: float) -> None:
            if what not in told:
                told.add(what)
                sys.stderr.write(f"probing: {what}, {share:.0%} of the time\n")

        yield plain
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("probing", total=1.0)
        yield lambda what, share: bar.update(task, completed=share, description=f"probing: {what}")
