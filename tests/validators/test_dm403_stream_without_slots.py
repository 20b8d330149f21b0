"""DM403 stream-without-slots: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, Device, Tier
from devmap.plan.model import Charge, DeviceUse, Placement, Plan

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


GPU = Device(Tier.ACCELERATOR, 0)


def plan_with(slots: tuple[Charge, ...], *, executes_on: Device = GPU) -> Plan:
    placements = (Placement("a", GPU, GPU, 10), Placement("b", CPU, executes_on, 40_000_000))
    return Plan(
        {"": 0},
        placements,
        (DeviceUse(GPU, 100_000_000, 10, slots), DeviceUse(CPU, 100_000_000, 40_000_000)),
        "auto",
    )


def test_one_slot_is_said_with_what_the_second_takes(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT, plan=plan_with((Charge("slots", 40_000_000),))), "DM403")
    assert finding.path == ("max_memory", "0")
    assert finding.message == "device 0 has room for one slot of 40.0 MB: copies cannot overlap with compute"
    assert finding.help == "free 40.0 MB more on it for a second slot"


def test_what_is_computed_on_the_cpu_is_said(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT, plan=plan_with((), executes_on=CPU)), "DM403")
    assert finding.path == ("max_memory",)
    assert finding.message == "1 module on cpu is computed in place: no accelerator has room for a slot"


def test_two_slots_are_enough(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT, plan=plan_with((Charge("slots", 80_000_000),))), "DM403") == ()


def test_a_machine_without_accelerators_has_no_slots_to_miss(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    plan = dataclasses.replace(plan_with((), executes_on=CPU), devices=(DeviceUse(CPU, 100, 40),))
    assert findings_of(context_of(TEXT, plan=plan), "DM403") == ()


def test_slots_are_counted_against_the_largest_block_of_each_accelerator(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    other, host = Device(Tier.ACCELERATOR, 1), Charge("headroom", 90_000_000)
    placements = tuple(
        Placement(path, CPU, device, nbytes)
        for path, device, nbytes in (
            ("a", GPU, 40_000_000),
            ("b", GPU, 10_000_000),
            ("c", other, 20_000_000),
            ("d", DISK, 0),
        )
    )
    on_cpu = (
        Placement("e", DISK, CPU, 50_000_000),
    )  # read from disk into host memory, which takes no slot of an accelerator
    devices = (
        DeviceUse(GPU, 200_000_000, 0, (Charge("slots", 79_999_999), host)),
        DeviceUse(other, 200_000_000, 0, (Charge("slots", 20_000_000), Charge("slots", 10_000_000))),
        DeviceUse(Device(Tier.ACCELERATOR, 2), 200_000_000, 0, (host,)),
        DeviceUse(CPU, 200_000_000, 70_000_000),
    )
    text = TEXT.replace("{0: 2GB}", "{0: 2GB, 1: 2GB}")
    found = findings_of(context_of(text, plan=Plan({"": 0}, placements + on_cpu, devices, "auto")), "DM403")
    assert [(finding.path, finding.message, finding.help) for finding in found] == [
        (
            ("max_memory", "0"),
            "device 0 has room for one slot of 40.0 MB: copies cannot overlap with compute",
            "free 1 byte more on it for a second slot",
        ),
        (
            ("max_memory", "1"),
            "device 1 has room for one slot of 20.0 MB: copies cannot overlap with compute",
            "free 10.0 MB more on it for a second slot",
        ),
    ]


def test_what_is_computed_in_place_is_counted_without_what_is_empty(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    plan = plan_with((), executes_on=CPU)
    more = (Placement("tied", CPU, CPU, 0), Placement("c", CPU, CPU, 30_000_000))
    plan = dataclasses.replace(plan, placements=(*plan.placements, *more))
    (finding,) = findings_of(context_of(TEXT, plan=plan), "DM403")
    assert finding.message == "2 modules on cpu are computed in place: no accelerator has room for a slot"
    assert finding.help == "'b' is the first; a slot of 40.0 MB on an accelerator would stream them"


def test_fastest_computes_in_place_where_that_is_faster(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    plan = plan_with((), executes_on=CPU)
    assert findings_of(context_of(TEXT + "device_map: fastest\n", plan=plan), "DM403") == ()
    assert len(findings_of(context_of(TEXT + "device_map: balanced\n", plan=plan), "DM403")) == 1
