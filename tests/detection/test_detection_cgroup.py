"""Container limits, read from trees laid out as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txlplan.detection._cgroup import cpu_quota, memory_limit_bytes


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_no_control_groups_means_no_limit(tmp_path):
    assert cpu_quota(tmp_path) is None
    assert memory_limit_bytes(tmp_path) is None


def test_version_2_quota_is_the_tightest_of_the_group_and_those_above(tmp_path):
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
            "sys/fs/cgroup/outer/memory.max": "2147483648\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        },
    )
    assert cpu_quota(root) == pytest.approx(1.5)
    assert memory_limit_bytes(root) == 2 << 30


def test_version_1_controllers_have_trees_of_their_own(tmp_path):
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1073741824\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert cpu_quota(root) == pytest.approx(2.0)
    assert memory_limit_bytes(root) == 1 << 30


def test_version_1_without_quota_is_no_limit(tmp_path):
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "2:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(root) is None


def test_a_path_outside_of_what_is_mounted_falls_back_on_the_mounted_root(tmp_path):
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/not/visible/here\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory.max": "1\n",
        },
    )
    assert cpu_quota(root) == pytest.approx(0.5)
    assert memory_limit_bytes(root) == 1


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30))
def test_garbage_is_no_limit_and_no_error(tmp_path, text):
    root = _tree(tmp_path, {"proc/self/cgroup": "0::/\n"})
    for name in ("cpu.max", "memory.max"):
        (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text("x" + text, encoding="utf-8", newline="")
    assert cpu_quota(root) is None
    assert memory_limit_bytes(root) is None
