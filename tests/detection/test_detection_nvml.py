"""NVML through its real Python binding, against a small C library that stands in for the driver's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = """
import json
from txlplan.config import to_plain
from txlplan.detection import detect
found = detect()
print(json.dumps({"devices": [to_plain(d) for d in found.devices], "driver": found.driver, "notes": found.notes}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for NVML with")
    directory = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", directory / "libnvidia-ml.so.1", source], check=True)
    return directory


def _detect(library: Path, **settings: str) -> dict[str, Any]:
    environment = os.environ | settings | {"LD_LIBRARY_PATH": str(library)}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def test_named_gpus_get_their_shipped_profile(library):
    found = _detect(library)
    assert [device["id"] for device in found["devices"]] == ["v100-sxm2-16gb", "v100-sxm2-16gb", "local-cpu"]
    assert found["driver"] == "550.54.15"


def test_variants_of_one_name_are_told_apart_by_memory_and_pattern(library):
    found = _detect(library, FAKE_NVML_NAME="NVIDIA A100 80GB PCIe", FAKE_NVML_MEMORY_MIB="81251", FAKE_NVML_COUNT="1")
    assert found["devices"][0]["id"] == "a100-pcie-80gb"


def test_a_gpu_with_a_profile_s_name_but_other_memory_is_derived(library):
    found = _detect(library, FAKE_NVML_MEMORY_MIB="8192", FAKE_NVML_COUNT="1")
    gpu = found["devices"][0]
    assert gpu["provenance"] == "derived"
    assert gpu["memory_bytes"] == 8192 << 20
    assert any("no profile matches" in note for note in found["notes"])


def test_an_unknown_gpu_is_derived_from_what_the_driver_says(library):
    found = _detect(library, FAKE_NVML_NAME="NVIDIA Mystery 9000", FAKE_NVML_COUNT="1")
    gpu = found["devices"][0]
    assert (gpu["id"], gpu["compute_capability"], gpu["power_w"]) == ("nvidia-mystery-9000", "7.0", 300.0)
    assert gpu["sources"]["default"]


def test_a_call_that_fails_is_a_note(library):
    found = _detect(library, FAKE_NVML_FAILS="nvmlDeviceGetCudaComputeCapability")
    assert found["devices"][0]["id"] == "v100-sxm2-16gb"
    assert any("nvmlDeviceGetCudaComputeCapability" in note for note in found["notes"])


def test_a_gpu_that_does_not_answer_is_left_out(library):
    found = _detect(library, FAKE_NVML_FAILS="nvmlDeviceGetMemoryInfo")
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert any("GPU 1 does not answer" in note for note in found["notes"])


def test_a_driver_that_is_not_loaded_is_a_note(library):
    found = _detect(library, FAKE_NVML_FAILS="nvmlInit_v2")
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert any("Driver Not Loaded" in note for note in found["notes"])
