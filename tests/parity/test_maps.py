"""devmap's maps and Accelerate's, each judged by the other's check and by what the model is made of."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import accelerate.utils
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devmap
from tests.parity.parity_models import chain, homes, modules, torn, total_bytes

if TYPE_CHECKING:
    from torch import nn

WHOLE: list[list[str]] = [[], ["Block"]]


def accepted_by_accelerate(model: nn.Module, device_map: dict[str, int | str]) -> None:
    with warnings.catch_warnings():
        # Accelerate warns of keys that name a parameter, which its own planner writes as well.
        warnings.filterwarnings(
            "ignore",
            message="The following device_map keys do not match any submodules",
            category=UserWarning,
        )
        accelerate.utils.check_device_map(model, device_map)


@st.composite
def budgets(draw: st.DrawFn, total: int) -> dict[int | str, int | str]:
    found: dict[int | str, int | str] = {
        device: draw(st.integers(0, total))
        for device in draw(st.lists(st.integers(0, 5), max_size=3, unique=True))
    }
    return {**found, "cpu": 3 * total} if draw(st.booleans()) else {**found, draw(st.integers(6, 7)): total}


@settings(max_examples=100)
@given(st.data(), modules(), st.sampled_from(WHOLE))
def test_accelerate_s_check_accepts_every_map_of_devmap(
    drawn: st.DataObject, model: nn.Module, whole: list[str]
) -> None:
    device_map = devmap.infer_auto_device_map(model, drawn.draw(budgets(total_bytes(model))), whole)
    accepted_by_accelerate(model, device_map)


@settings(max_examples=100)
@given(st.data(), modules(), st.sampled_from(WHOLE), st.booleans())
def test_a_map_is_complete_on_offered_devices_within_every_budget_and_tears_nothing(
    drawn: st.DataObject, model: nn.Module, whole: list[str], clean: bool
) -> None:
    memory = drawn.draw(budgets(total_bytes(model)))
    device_map = devmap.infer_auto_device_map(model, memory, whole, clean_result=clean)
    placed = homes(model, device_map)
    assert None not in placed.values()
    assert set(device_map.values()) <= set(memory)
    assert torn(model, placed, whole) == []
    used: dict[Any, dict[int, int]] = {}
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        used.setdefault(placed[name], {})[id(tensor)] = tensor.nbytes
    for device, tensors in used.items():
        limit = memory[device]
        assert isinstance(limit, int)
        assert sum(tensors.values()) <= limit


@settings(max_examples=100)
@given(st.data(), modules(), st.sampled_from(WHOLE))
def test_devmap_s_check_accepts_its_own_maps(
    drawn: st.DataObject, model: nn.Module, whole: list[str]
) -> None:
    memory = drawn.draw(budgets(total_bytes(model)))
    device_map = devmap.infer_auto_device_map(model, memory, whole)
    devmap.check_device_map(model, device_map, whole, memory)


@settings(max_examples=100)
@given(st.data(), modules(), st.sampled_from(WHOLE))
def test_devmap_s_check_accepts_accelerate_s_maps_except_where_they_are_wrong(
    drawn: st.DataObject, model: nn.Module, whole: list[str]
) -> None:
    memory = drawn.draw(budgets(total_bytes(model)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Current model requires", category=UserWarning)
        try:
            device_map = dict(accelerate.utils.infer_auto_device_map(model, dict(memory), list(whole)))
        except (IndexError, AttributeError):  # Accelerate's own, on ties with a bare parameter
            return
    placed = homes(model, device_map)
    wrong = None in placed.values() or bool(torn(model, placed, whole))
    try:
        devmap.check_device_map(model, device_map, whole)
    except devmap.DeviceMapError:
        assert wrong
    else:
        assert not wrong


@pytest.mark.parametrize("check", [accelerate.utils.check_device_map, devmap.check_device_map])
def test_what_accelerate_s_check_refuses_devmap_s_refuses_as_a_value_error(check: Any) -> None:
    with pytest.raises(ValueError, match="m1"):
        check(chain(5, 5), {"m0": 0})
