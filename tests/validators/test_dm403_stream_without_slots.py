"""DM403 stream-without-slots: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.config.device import CPU, Device, Tier
from devmap.plan.model import Charge, DeviceUse, Placement, Plan

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


GPU = Device(Tier.ACCELERATOR, 0)


def plan_with(slots: tuple[Charge, ...], *, executes_on: Device = GPU) -> Plan:
    placements = (Placement("a", GPU, GPU, 10), Placement("b", CPU, executes_on, 40_000_000))
    return Plan({"": 0}, placements, (DeviceUse(GPU, 100_000_000, 10, slots), DeviceUse(CPU, 100_000_000, 40_000_000)), "auto")


def test_one_slot_is_said_with_what_the_second_takes(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT, plan=plan_with((Charge("slots", 40_000_000),))), "DM403")
    assert finding.path == ("max_memory", "0")
    assert finding.message == "device 0 has room for one slot of 40.0 MB: each copy is waited for"
    assert finding.help == "free 40.0 MB more on it for a second slot"


def test_what_is_computed_on_the_cpu_is_said(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT, plan=plan_with((), executes_on=CPU)), "DM403")
    assert finding.path == ("max_memory",)
    assert finding.message == "1 module on cpu is computed in place: no accelerator has room for a slot"


def test_two_slots_are_enough(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT, plan=plan_with((Charge("slots", 80_000_000),))), "DM403") == ()


def test_a_machine_without_accelerators_has_no_slots_to_miss(context_of: ContextOf, findings_of: FindingsOf) -> None:
    plan = dataclasses.replace(plan_with((), executes_on=CPU), devices=(DeviceUse(CPU, 100, 40),))
    assert findings_of(context_of(TEXT, plan=plan), "DM403") == ()
