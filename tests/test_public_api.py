from __future__ import annotations

import inspect

import pytest

import devmap
from devmap import errors


@pytest.mark.parametrize("name", devmap.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(devmap, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert set(devmap.__all__) <= set(dir(devmap))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        devmap.__getattr__("no_such_name")


def test_every_error_derives_from_devmap_error_and_is_exported() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.DevmapError)
    }
    assert classes <= set(devmap.__all__)


def test_an_error_prints_its_problems_and_help() -> None:
    class Missing:
        code = "DM202"
        message = "nothing places 'a'"

    error = errors.DeviceMapError("1 problem", problems=[Missing()], help="name it")
    assert str(error) == "1 problem\n  DM202 nothing places 'a'\n  help: name it"


def test_out_of_memory_is_a_memory_error_with_figures() -> None:
    error = errors.OutOfMemoryError("sim:0", requested_bytes=10, used_bytes=5, budget_bytes=8)
    assert isinstance(error, MemoryError)
    assert (error.requested_bytes, error.used_bytes, error.budget_bytes) == (10, 5, 8)
    assert "3 of 8 free" in str(error)
