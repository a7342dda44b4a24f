"""Every shipped profile parses, and no figure in one stands without a source, or above what the chip can do."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from txlplan import resources
from txlplan.config import parse_toml, to_toml
from txlplan.errors import ConfigError
from txlplan.hardware import StackProfile, devices, stacks, systems

_SHIPPED = resources.shipped("profiles")
_FILES = {kind: sorted((_SHIPPED / kind).glob("*.toml")) for kind in ("devices", "systems", "stacks")}
_NO_FIGURE = {"name", "kind", "vendor", "architecture", "match", "notes", "provenance", "sources", "prices", "device", "stack",
              "family", "version", "mode", "implementation", "mixed_precision", "fitted_on", "measured_device", "spread",
              "gradient_sync", "fused", "fitted_devices",
              "extends"}  # fmt: skip

# Dense tensor-core FMA per multiprocessor and clock with fp32 accumulation: (fp16 and bf16, tf32).
_FMA_PER_SM = {
    **dict.fromkeys(("v100-sxm2-16gb", "v100-sxm2-32gb", "v100-sxm3-32gb", "v100-sxm3-32gb-450w"), (512, 0)),
    **dict.fromkeys(("v100-pcie-16gb", "v100-pcie-32gb", "t4", "titan-rtx"), (512, 0)),
    **dict.fromkeys(("quadro-rtx-5000", "quadro-rtx-6000", "quadro-rtx-8000"), (512, 0)),
    "rtx-2080-ti": (256, 0),
    "a10g": (256, 128),
    "b200": (4096, 2048),
    "mi300x": (1024, 512),
    "mi250x-gcd": (512, 0),
    **dict.fromkeys(("a100-sxm4-40gb", "a100-sxm4-80gb", "a100-pcie-40gb", "a100-pcie-80gb"), (1024, 512)),
    **dict.fromkeys(("a10", "a40", "rtx-a4000", "rtx-a4500", "rtx-a5000", "rtx-a5500", "rtx-a6000"), (512, 256)),
    **dict.fromkeys(("rtx-3070", "rtx-3080", "rtx-3090"), (256, 128)),
    **dict.fromkeys(("l4", "l40s", "rtx-6000-ada"), (512, 256)),
    "rtx-4090": (256, 128),
    **dict.fromkeys(("h100-sxm5-80gb", "h100-pcie-80gb", "h200"), (2048, 1024)),
    "gtx-1080-ti": (0, 0),
}
# Published dense peaks, FLOP/s.
_PUBLISHED_DENSE = {
    ("v100-sxm2-16gb", "fp16"): 125e12, ("v100-pcie-16gb", "fp16"): 112e12, ("t4", "fp16"): 65e12,
    ("quadro-rtx-6000", "fp16"): 130.5e12, ("rtx-2080-ti", "fp16"): 53.8e12, ("rtx-3090", "fp16"): 71e12,
    ("rtx-4090", "fp16"): 165.2e12, ("rtx-a6000", "bf16"): 154.8e12, ("a100-sxm4-40gb", "bf16"): 312e12,
    ("a100-sxm4-80gb", "tf32"): 156e12, ("h100-sxm5-80gb", "bf16"): 989e12, ("h100-sxm5-80gb", "tf32"): 494.5e12,
    ("h200", "fp16"): 989e12, ("l40s", "bf16"): 362e12, ("tpu-v3", "bf16"): 140e12, ("tpu-v4", "bf16"): 275e12,
    ("tpu-v5e", "bf16"): 197e12, ("tpu-v5p", "bf16"): 459e12, ("tpu-v6e", "bf16"): 918e12,
}  # fmt: skip
_FP32_FMA_PER_SM = {
    "6.1": 128,
    "7.0": 64,
    "7.5": 64,
    "8.0": 64,
    "8.6": 128,
    "8.9": 128,
    "9.0": 128,
    "10.0": 128,
    "cdna2": 64,
    "cdna3": 128,
}

_PUBLISHED_DEVICES = ("a100-sxm4-40gb", "v100-sxm2-16gb", "t4", "rtx-3090", "rtx-a4000", "rtx-a4500", "rtx-a6000",
                      "rtx-2080-ti", "quadro-rtx-6000")  # fmt: skip
_PUBLISHED_SYSTEMS = ("dgx-1", "dgx-2", "dgx-a100-40gb", "p3.2xlarge", "p3.16xlarge", "t4-server")


def _ids(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def figures_without_source(raw: dict[str, Any]) -> list[str]:
    """Dotted keys of a profile's raw tables that neither `sources` nor its default covers."""
    sources = raw.get("sources", {})

    def covered(key: str) -> bool:
        parts = key.split(".")
        return any(".".join(parts[:depth]) in sources for depth in range(len(parts), 0, -1)) or bool(sources.get("default"))

    def keys(table: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in table.items():
            if not prefix and key in _NO_FIGURE:
                continue
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    return [key for key in keys(raw, "") if not covered(key)]


@pytest.mark.parametrize("path", [path for files in _FILES.values() for path in files], ids=_ids)
def test_every_figure_has_a_source(path):
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    assert figures_without_source(raw) == []
    assert all(text.strip() for text in raw["sources"].values())


def test_the_check_finds_a_figure_without_source():
    raw = {
        "name": "X",
        "memory": "16 GiB",
        "peak": {"fp16": "1 TFLOP/s", "fp32": "1 TFLOP/s"},
        "sources": {"peak.fp32": "sheet"},
    }
    assert figures_without_source(raw) == ["memory", "peak.fp16"]


def peak_problem(device: str, dtype: str, peak: float, cores: int, clock_hz: float | None) -> str | None:
    """Why a peak cannot be a dense one; None where it can."""
    published = _PUBLISHED_DENSE.get((device, dtype))
    if published is not None and peak > 1.05 * published:
        return f"above the published dense {published:.4g}"
    if device in _FMA_PER_SM and dtype != "fp32":
        half, tf32 = _FMA_PER_SM[device]
        most = 2.0 * cores * (tf32 if dtype == "tf32" else half) * (clock_hz or 0)
        if peak > 1.01 * most:
            return f"above 2 x SMs x FMA x clock = {most:.4g}"
    return None


@pytest.mark.parametrize("name", [path.stem for path in _FILES["devices"]])
def test_peaks_are_dense(name):
    device = devices.get(name)
    for dtype, peak in device.peak_flops_per_s.items():
        assert peak_problem(name, dtype, peak, device.cores, device.clock_hz) is None, (name, dtype)
    if device.kind == "gpu":
        assert name in _FMA_PER_SM, "a GPU needs a row in this test's table"
        vector = 2 * device.cores * _FP32_FMA_PER_SM[device.compute_capability or device.architecture] * device.clock_hz
        assert device.peak("fp32") == pytest.approx(vector, rel=0.01)


@pytest.mark.parametrize(("device", "dtype", "peak"), [("a100-sxm4-40gb", "bf16", 624e12), ("h100-sxm5-80gb", "tf32", 989e12)])
def test_the_check_refuses_a_sparse_peak(device, dtype, peak):
    profile = devices.get(device)
    assert peak_problem(device, dtype, peak, profile.cores, profile.clock_hz) is not None


def test_bf16_and_tf32_are_claimed_only_from_ampere_on():
    for device in devices.all():
        if device.vendor == "NVIDIA" and float(device.compute_capability) < 8:
            assert not {"bf16", "tf32"} & set(device.peak_flops_per_s), device.id


def test_usable_memory_is_at_most_the_installed_one():
    for device in devices.all():
        assert 0.9 * device.memory_bytes <= device.usable_bytes() <= device.memory_bytes, device.id


@pytest.mark.parametrize("path", [path for files in _FILES.values() for path in files], ids=_ids)
def test_an_id_is_its_file_s_name(path):
    catalog = {"devices": devices, "systems": systems, "stacks": stacks}[path.parent.name]
    assert "id" not in tomllib.loads(path.read_text(encoding="utf-8"))
    assert catalog.get(path.stem).id == path.stem


@pytest.mark.parametrize("name", [path.stem for path in _FILES["systems"]])
def test_a_system_s_device_and_stack_exist_and_its_links_fit(name):
    system = systems.get(name)
    assert system.device in devices.paths()
    assert system.stack is None or system.stack in stacks.paths()
    assert (system.intra_node is not None) == (system.n_devices > 1)
    link = system.intra_node
    if link and link.all_reduce_bus_bandwidth_bytes_per_s:
        assert link.all_reduce_bus_bandwidth_bytes_per_s <= link.bandwidth_bytes_per_s


@pytest.mark.parametrize("name", [path.stem for path in _FILES["systems"]])
def test_a_price_has_a_source_and_a_date_that_is_past(name):
    for price in systems.get(name).prices:
        assert price.source.strip()
        assert datetime.date(2017, 1, 1) <= datetime.date.fromisoformat(price.date)


@pytest.mark.parametrize("name", [path.stem for path in _FILES["stacks"]])
def test_a_stack_s_points_are_shares_of_an_existing_device_s_ceilings(name):
    stack = stacks.get(name)
    assert stack.measured_device is None or stack.measured_device in devices.paths()
    assert stack.spread is not None
    for point in stack.efficiency:
        limit = 1.05 if point.kind in ("gemm", "linear", "bmm") else 30.0
        assert 0 < point.utilisation <= limit, point


def test_what_was_published_can_be_named():
    assert set(_PUBLISHED_DEVICES) <= set(devices.paths())
    assert set(_PUBLISHED_SYSTEMS) <= set(systems.paths())


def test_the_v100_of_a_dgx_1_is_as_its_data_sheet_says():
    device = devices.get("v100-sxm2-16gb")
    assert (device.power_w, device.memory_bandwidth_bytes_per_s, device.peak("fp16")) == (300.0, 900e9, 125e12)


@pytest.mark.parametrize("wrong", [{"op": "0 s"}, {"op": "-1 us"}, {"layer": "0 B"}, {"dtype": "fp8"}])
def test_what_a_token_s_operation_costs_the_host_is_of_a_precision_and_more_than_nothing(wrong: dict[str, str]) -> None:
    point = {"dtype": "fp32", "layer": "1 MiB", "op": "5 us"}
    raw = {"id": "ours", "family": "ours", "version": "0"}
    assert parse_toml(StackProfile, {**raw, "token_host": [point]}, "ours.toml").token_host[0].op_s == pytest.approx(5e-6)
    with pytest.raises(ConfigError, match=rf"ours\.toml: .*token_host.*{next(iter(wrong))}"):
        parse_toml(StackProfile, {**raw, "token_host": [point | wrong]}, "ours.toml")


@pytest.mark.parametrize(
    ("name", "point", "wrong"),
    [
        ("compiled_token_host", {"dtype": "bf16", "token": "3 MiB", "op": "9 us"}, {"token": "0 B"}),
        ("compiled_token_host", {"dtype": "bf16", "token": "3 MiB", "op": "9 us"}, {"op": "0 s"}),
        ("token_reading", {"read": "8 MiB", "threads": 2, "bandwidth": "57 GB/s"}, {"read": "0 B"}),
        ("token_reading", {"read": "8 MiB", "threads": 2, "bandwidth": "57 GB/s"}, {"threads": 0}),
        ("token_reading", {"read": "8 MiB", "threads": 2, "bandwidth": "57 GB/s"}, {"bandwidth": "0 GB/s"}),
    ],
)
def test_what_compiled_tokens_took_is_more_than_nothing(name: str, point: dict[str, Any], wrong: dict[str, Any]) -> None:
    raw = {"id": "ours", "family": "ours", "version": "0"}
    stack = parse_toml(StackProfile, {**raw, name: [point]}, "ours.toml")
    assert parse_toml(StackProfile, tomllib.loads(to_toml(stack)), "ours.toml") == stack
    with pytest.raises(ConfigError, match=rf"ours\.toml: .*{name}.*{next(iter(wrong))}"):
        parse_toml(StackProfile, {**raw, name: [point | wrong]}, "ours.toml")
