"""A stack for a version that has no profile."""

from __future__ import annotations

import pytest

from txlplan.errors import ConfigError
from txlplan.hardware import nearest_stack


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nvidia-20.06-torchscript", "nvidia-20.06-torchscript"),
        ("nvidia-19.09-eager", "nvidia-20.06-eager"),
        ("nvidia-19.11-torchscript", "nvidia-20.06-torchscript"),
        ("lambda-torch2.1-apex", "lambda-torch1.13-apex"),
        ("lambda-torch1.8-apex", "lambda-torch1.7-apex"),
        ("lambda-2021-amp", "lambda-2020-amp"),
    ],
)
def test_the_nearest_version_of_the_family_and_mode(name, found):
    assert nearest_stack(name).id == found


@pytest.mark.parametrize("name", ["unheard-of-1.0", "nvidia"])
def test_a_family_of_which_nothing_is_known(name):
    with pytest.raises(ConfigError, match="unknown stack"):
        nearest_stack(name)
