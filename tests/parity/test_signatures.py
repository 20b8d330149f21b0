"""A call written for Accelerate means the same to devmap."""

from __future__ import annotations

import inspect

import accelerate.utils
import pytest

import devmap

SHARED = ["infer_auto_device_map", "get_balanced_memory", "check_device_map"]


@pytest.mark.parametrize("name", SHARED)
def test_every_parameter_has_the_name_the_place_and_the_default_that_accelerate_gives_it(name: str) -> None:
    theirs = list(inspect.signature(getattr(accelerate.utils, name)).parameters.values())
    ours = list(inspect.signature(getattr(devmap, name)).parameters.values())
    assert [(one.name, one.kind, one.default) for one in ours[: len(theirs)]] == [
        (one.name, one.kind, one.default) for one in theirs
    ]


@pytest.mark.parametrize("name", SHARED)
def test_every_further_parameter_may_be_left_out(name: str) -> None:
    theirs = inspect.signature(getattr(accelerate.utils, name)).parameters
    more = [
        one for one in inspect.signature(getattr(devmap, name)).parameters.values() if one.name not in theirs
    ]
    assert all(one.default is not inspect.Parameter.empty for one in more)
