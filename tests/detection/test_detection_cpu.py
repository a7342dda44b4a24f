"""The CPU as one device: what the operating system says, cut down to what may be used."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from txlplan.detection import detect, usable_cpus
from txlplan.detection._cpu import read_cpu
from txlplan.detection._match import derive_cpu, match_cpu

_CPUINFO = """vendor_id\t: GenuineIntel
model name\t: Test CPU
cpu MHz\t: 2000.0
flags\t: fpu avx2 avx512f avx512_bf16

processor: 1
"""


@pytest.fixture
def limited(tmp_path):
    for name, text in {
        "proc/cpuinfo": _CPUINFO,
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "100000 100000\n",
        "sys/fs/cgroup/memory.max": "1073741824\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_container_limits_cut_cores_and_memory(limited):
    cpu = read_cpu(limited)
    assert (cpu.name, cpu.vendor, cpu.usable_cpus, cpu.cores, cpu.memory_bytes) == ("Test CPU", "GenuineIntel", 1, 1, 1 << 30)
    assert any("memory limited" in note for note in cpu.notes)
    if cpu.logical_cpus > 1:
        assert any("CPU time limited" in note for note in cpu.notes)


def test_a_derived_cpu_says_what_is_assumed(limited):
    cpu = read_cpu(limited)
    profile = derive_cpu(cpu)
    assert profile.provenance == "derived"
    assert profile.memory_bytes == 1 << 30
    assert "assumed" in profile.sources["peak.fp32"]


@pytest.mark.parametrize(
    ("features", "of_fp32"),
    [
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, 6.9),
        ({"avx2", "avx512f", "avx512_bf16"}, 2.0),
        ({"avx2", "avx512f"}, 0.85),
        ({"avx2"}, 0.85),
    ],
)
def test_bf16_is_fast_by_instructions_for_it_and_near_fp32_where_products_are_widened(limited, features, of_fp32):
    profile = derive_cpu(replace(read_cpu(limited), features=frozenset(features)))
    assert profile.peak("bf16") == pytest.approx(of_fp32 * profile.peak("fp32"))


def test_a_virtual_machine_has_no_more_of_a_cache_than_its_cores_can_have(limited):
    cpu = replace(read_cpu(limited), cores=2, cache_bytes=480 << 20)
    assert derive_cpu(cpu).cache_bytes == 64 << 20
    assert derive_cpu(replace(cpu, cache_bytes=30 << 20)).cache_bytes == 30 << 20
    assert derive_cpu(replace(cpu, cache_bytes=None)).cache_bytes is None


def test_a_profile_of_this_cpu_with_other_cores_does_not_match(limited):
    cpu = read_cpu(limited)
    own = derive_cpu(cpu)
    assert match_cpu(cpu, [own]) is own
    assert match_cpu(cpu, [replace(own, id="other", cores=64)]).id == "local-cpu"


def test_missing_cpuinfo_is_a_note(tmp_path):
    cpu = read_cpu(tmp_path)
    assert cpu.memory_bytes > 0
    assert any("/proc/cpuinfo" in note for note in cpu.notes)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_affinity_is_respected():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_detection_always_ends_with_the_cpu_and_never_fails():
    found = detect()
    assert found.devices[-1].kind == "cpu"
    assert found.devices[-1].memory_bytes > 0
    assert all(device.kind != "cpu" for device in found.accelerators)


def test_a_broken_profile_of_the_user_is_a_note(home):
    from txlplan import resources

    path = resources.user("profiles") / "devices" / "broken.toml"
    path.parent.mkdir(parents=True)
    path.write_text('memory = "16"')
    assert any("broken.toml" in note for note in detect().notes)
