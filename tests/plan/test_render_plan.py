from __future__ import annotations

import pytest

from devmap.config.model.machines import PRESETS, preset
from devmap.plan.diff import diff_plans
from devmap.planning.resolve import resolve
from devmap.report.plan import render_plan
from devmap.report.plan_diff import render_diff
from tests.planning.planning_models import chain, config

MODEL = chain(48, 7, 7, 7, 7, 7)
PLAN = resolve(config(max_memory={0: 60, 1: 25, "cpu": 15, "disk": 100}), MODEL)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_rendered_plan_fits_its_width_and_tells_devices_and_reasons(width: int) -> None:
    text = render_plan(PLAN, MODEL, width=width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("m0 to m1", "device 1", "slots", "runs on device 1", "why"):
        assert part in text
    assert "\x1b" in render_plan(PLAN, MODEL, width=width, color=True)


def test_a_rendered_diff_folds_equal_moves() -> None:
    other = resolve(config(max_memory={0: 100}), MODEL)
    text = render_diff(diff_plans(PLAN, other), width=80)
    assert "disk (runs on device 1) -> device 0" in text
    assert "not offered" in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_memory_and_rates(name: str) -> None:
    machine = preset(name)
    assert machine is not None
    assert len(machine.devices) == int(name.partition("x")[0]) + 2
    assert all(device.memory > 0 for device in machine.devices.values())


def test_an_unknown_machine_is_none() -> None:
    assert preset("2xabacus") is None
    assert preset("99x4090") is None
