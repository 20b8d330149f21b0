"""What the schemas of a policy see of a config, its plan and its lock.

And the way back to what somebody wrote.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from devmap.config.values.device import CPU, DISK, parse_device
from devmap.plan.lock import lock_of
from devmap.plan.model import Charge, DeviceUse, Placement, Plan
from devmap_validators.checks.policy_subjects import document_path, subject

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
FIRST, SECOND = parse_device(0), parse_device(1)
PLACEMENTS = (
    Placement("a", FIRST, FIRST, 300),
    Placement("b", CPU, FIRST, 200),
    Placement("c", DISK, CPU, 100),
)


def plan_over(*devices: DeviceUse) -> Plan:
    return Plan({"": 0}, PLACEMENTS, devices, "balanced", dtype="float16")


def test_a_plan_is_bytes_by_device_and_by_tier(context_of: ContextOf) -> None:
    plan = plan_over(
        DeviceUse(FIRST, 1000, 300, (Charge("headroom", 100), Charge("slots", 400))),
        DeviceUse(SECOND, 2000, 200),
        DeviceUse(CPU, 4000, 200, (Charge("headroom", 1000),)),
        DeviceUse(DISK, None, 100),
    )
    first = {
        "capacity_bytes": 1000,
        "weight_bytes": 300,
        "reserved_bytes": 500,
        "free_bytes": 200,
        "kept_free_percent": 10.0,
    }
    second = {
        "capacity_bytes": 2000,
        "weight_bytes": 200,
        "reserved_bytes": 0,
        "free_bytes": 1800,
        "kept_free_percent": 0.0,
    }
    cpu = {
        "capacity_bytes": 4000,
        "weight_bytes": 200,
        "reserved_bytes": 1000,
        "free_bytes": 2800,
        "kept_free_percent": 25.0,
    }
    disk = {
        "capacity_bytes": None,
        "weight_bytes": 100,
        "reserved_bytes": 0,
        "free_bytes": None,
        "kept_free_percent": 100.0,
    }
    assert subject("plan", context_of(HEAD, plan=plan)) == {
        "strategy": "balanced",
        "dtype": "float16",
        "devices": {"0": first, "1": second, "cpu": cpu, "disk": disk},
        "accelerators": {"0": first, "1": second},
        "accelerator_bytes": 500,
        "cpu_bytes": 200,
        "disk_bytes": 100,
        "streamed_bytes": 300,
        "first_accelerator_is_lightest": False,
    }


@pytest.mark.parametrize(
    ("weights", "lightest"),
    [
        ((100, 200), True),
        ((200, 200), True),
        ((200, 300, 100), False),
        ((200, 100), False),
        ((5,), True),
        ((), True),
    ],
)
def test_the_first_accelerator_is_the_lightest_where_no_other_holds_less(
    weights: tuple[int, ...], lightest: bool, context_of: ContextOf
) -> None:
    uses = [DeviceUse(parse_device(index), 1000, weight) for index, weight in enumerate(weights)]
    seen = subject("plan", context_of(HEAD, plan=plan_over(*uses, DeviceUse(CPU, 1000, 0))))
    assert seen is not None
    assert seen["first_accelerator_is_lightest"] is lightest


def test_what_is_kept_free_is_a_share_of_the_memory_that_the_machine_has(context_of: ContextOf) -> None:
    machine = "machine: {devices: {0: {memory: 3000}, 1: {memory: 2000}, disk: {memory: 9000}}}\n"
    plan = plan_over(
        DeviceUse(FIRST, 2000, 0, (Charge("headroom", 100),)),
        DeviceUse(SECOND, 2000, 0),
        DeviceUse(CPU, 0, 0),
        DeviceUse(DISK, None, 0),
    )
    seen = subject("plan", context_of(HEAD + machine, plan=plan))
    assert seen is not None
    devices = seen["devices"]
    assert isinstance(devices, dict)
    assert [use["kept_free_percent"] for use in devices.values()] == [36.67, 0.0, 100.0, 100.0]


def test_a_config_is_seen_in_its_long_form(context_of: ContextOf) -> None:
    seen = subject(
        "config",
        context_of(HEAD + "device_map: balanced\nmax_memory: {'cuda:0': 2GB, 1: 50%}\nheadroom: 10%\n"),
    )
    assert seen is not None
    assert seen["device_map"] == {"": "balanced"}
    assert seen["max_memory"] == {"0": 2_000_000_000, "1": "50%"}
    assert seen["headroom"] == {"default": "10%", "devices": {}}


def test_a_lock_is_present_fresh_and_edited(context_of: ContextOf) -> None:
    text = HEAD + "max_memory: {0: 2GB}\n"
    context = context_of(text)
    assert context.plan is not None
    lock = lock_of(context.plan)
    assert subject("lock", context) == {"present": False, "fresh": False, "edited": False}
    assert subject("lock", context_of(text, lock=lock)) == {"present": True, "fresh": True, "edited": False}
    assert subject("lock", context_of(text, lock=lock, plan=None)) == {
        "present": True,
        "fresh": True,
        "edited": False,
    }
    assert subject("lock", context_of(text + "headroom: 1%\n", lock=lock)) == {
        "present": True,
        "fresh": False,
        "edited": False,
    }
    edited = dataclasses.replace(lock, device_map={"": "cpu"})
    assert subject("lock", context_of(text, lock=edited)) == {"present": True, "fresh": True, "edited": True}


@pytest.mark.parametrize("over", ["config", "plan", "lock"])
def test_without_a_config_there_is_nothing_to_judge(over: str, context_of: ContextOf) -> None:
    assert subject(over, context_of("version: 1\n")) is None


@pytest.mark.parametrize(
    ("over", "path", "found"),
    [
        ("lock", ("fresh",), ()),
        ("plan", ("disk_bytes",), ("device_map",)),
        ("plan", ("devices",), ("device_map",)),
        ("plan", ("devices", "0", "kept_free_percent"), ("max_memory", "cuda:0")),
        ("plan", ("accelerators", "1"), ("max_memory", "1")),
        ("plan", ("accelerators", "7"), ("max_memory",)),
        ("config", ("max_memory", "0"), ("max_memory", "cuda:0")),
        ("config", ("same_device", 1, 0), ("same_device", 1, 0)),
        ("config", ("same_device", 2, 0), ("same_device",)),
        ("config", ("headroom", "default"), ("headroom",)),
        ("config", ("workload", "kind"), ()),
        ("config", (), ()),
    ],
)
def test_an_error_leads_back_to_the_nearest_thing_that_somebody_wrote(
    over: str, path: tuple[str | int, ...], found: tuple[str | int, ...], context_of: ContextOf
) -> None:
    text = (
        "device_map: balanced\nmax_memory: {'cuda:0': 2GB, 1: 2GB}\nheadroom: "
        "10%\nsame_device: [[lm_head], [model.norm]]\n"
    )
    assert document_path(over, path, context_of(HEAD + text)) == found


def test_a_plan_without_a_written_map_or_budgets_leads_nowhere(context_of: ContextOf) -> None:
    assert document_path("plan", ("disk_bytes",), context_of(HEAD)) == ()
    assert document_path("plan", ("devices", "0"), context_of(HEAD)) == ()
