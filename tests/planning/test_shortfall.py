"""What does not fit is told in bytes, with changes that were tried.

Each of them, set by `--set`, resolves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.document import parse_document
from devmap.config.model.machines import preset
from devmap.config.yaml.writer import render_yaml
from devmap.errors import ResolutionError
from devmap.inventory.model import Inventory, Tensor
from devmap.planning.resolve import resolve
from tests.effort import at_most
from tests.planning.planning_models import chain, config, decoder, inventories, memories

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile, PlacementConfig

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def refusal(
    keys: dict[str, Any], inventory: Inventory, machine: MachineProfile | None = None
) -> ResolutionError:
    with pytest.raises(ResolutionError) as caught:
        resolve(config(**keys), inventory, machine=machine)
    return caught.value


def overridden(keys: dict[str, Any], overrides: tuple[str, ...]) -> PlacementConfig:
    """The config as it stands in a file, with the overrides as `--set` has them."""
    plain = {"version": 1, "model": {"manifest": "x"}, **keys}
    plain["max_memory"] = (
        {str(key): amount for key, amount in plain["max_memory"].items()} if plain.get("max_memory") else None
    )
    text = render_yaml({key: value for key, value in plain.items() if value is not None})
    document = parse_document(text.encode(), "x.devmap.yaml", overrides=overrides)
    assert document.config is not None, document.faults
    return document.config


@st.composite
def misfits(draw: st.DrawFn) -> tuple[dict[str, Any], Inventory]:
    inventory = draw(inventories())
    keys: dict[str, Any] = {
        "device_map": draw(st.sampled_from(["auto", "balanced", "balanced_low_0"])),
        "max_memory": draw(memories(inventory.nbytes)),
    }
    if draw(st.booleans()):
        keys["headroom"] = draw(st.sampled_from(["10%", 3]))
    return keys, inventory


@settings(max_examples=80)
@given(misfits())
def test_every_suggested_change_set_as_an_override_resolves(case: tuple[dict[str, Any], Inventory]) -> None:
    keys, inventory = case
    try:
        resolve(config(**keys), inventory)
    except ResolutionError as raised:
        error = raised
    else:
        return
    assert error.shortfall_bytes > 0
    assert len(error.changes) == len(error.overrides) <= 3
    for overrides in error.overrides:
        resolve(overridden(keys, overrides), inventory)


def halves(*sizes: int) -> Inventory:
    """A chain of float32 tensors of so many bytes each."""
    plain = chain(*sizes)
    return Inventory(
        plain.modules,
        {name: Tensor(name, (one.shape[0] // 4,), "float32") for name, one in plain.tensors.items()},
    )


BATCH = {"batch_size": 16, "sequence_length": 512}
CASES: dict[str, tuple[dict[str, Any], Inventory, str]] = {
    "raise": ({"max_memory": {0: 10}}, chain(8, 8), "raise max_memory of device 0 by 6 B (6 bytes)"),
    "offer cpu": ({"max_memory": {0: 10}}, chain(8, 8), "offer cpu in max_memory with"),
    "offer disk": ({"max_memory": {0: 10}}, chain(8, 8), "offer disk in max_memory with"),
    "all accelerators": (
        {"max_memory": dict.fromkeys(range(4), 10)},
        chain(*[8] * 8),
        ("give every accelerator 6 B (6 bytes) more"),
    ),
    "headroom": (
        {"max_memory": {0: 20, "cpu": 0, "disk": 0}, "headroom": "50%", "device_map": "auto"},
        chain(8, 8),
        "leave 5% of each device free",
    ),
    "dtype": (
        {"max_memory": {0: 20, "cpu": 0, "disk": 0}},
        halves(16, 16),
        ("run the model in bfloat16 (model.dtype)"),
    ),
    "batch": (
        {"max_memory": {0: 300_000, "cpu": 0, "disk": 0}, "workload": BATCH},
        decoder(4),
        "lower workload.batch_size from 16 to",
    ),
    "sequence": (
        {"max_memory": {0: 20_000, "cpu": 0, "disk": 0}, "workload": {"sequence_length": 1024}},
        decoder(4),
        "lower workload.sequence_length from 1,024 to",
    ),
    "forbid": (
        {"max_memory": {0: 10, "cpu": 100, "disk": 0}, "forbid": {"cpu": ["m0", "m1"]}},
        chain(8, 8),
        "drop 'm0' from forbid.cpu",
    ),
    "same_device": (
        {"max_memory": {0: 10, 1: 10, "disk": 0}, "same_device": [["m0", "m1"]]},
        chain(8, 8),
        "drop same_device [m0, m1]",
    ),
    "pin": (
        {"max_memory": {0: 10, 1: 10, "disk": 0, "cpu": 0}, "device_map": {"m0": 0, "m1": 0, "": "auto"}},
        chain(8, 8),
        "place 'm0' by auto instead of pinning it to device 0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_change_is_found_and_resolves_as_an_override(name: str) -> None:
    keys, inventory, expected = CASES[name]
    error = refusal(keys, inventory)
    found = {
        change: overrides
        for change, overrides in zip(error.changes, error.overrides, strict=True)
        if change.startswith(expected)
    }
    assert found, error.changes
    for overrides in found.values():
        resolve(overridden(keys, overrides), inventory)


def test_distinct_kinds_come_before_a_second_raise() -> None:
    error = refusal({"max_memory": {0: 10, 1: 10}}, chain(8, 8, 8))
    assert [change.split()[0] for change in error.changes] == ["raise", "offer", "offer"]


def test_the_shortfall_of_a_device_is_the_smallest_raise_of_it_alone() -> None:
    memory: dict[int | str, int] = {0: 10, "cpu": 1, "disk": 3}
    error = refusal({"max_memory": memory}, chain(8, 8, 8))
    assert error.shortfall_by_device[0] == 14
    assert "cpu" in error.shortfall_by_device
    # On the disk 13 B are enough: what the CPU computes from there is mapped, and takes no slot of its
    # budget.
    assert "alone 13 B on disk, or 14 B on device 0, or 15 B on cpu" in error.message
    resolve(config(max_memory={**memory, "disk": 16}), chain(8, 8, 8))
    for device, nbytes in error.shortfall_by_device.items():
        resolve(config(max_memory={**memory, device: memory[device] + nbytes}), chain(8, 8, 8))
        with pytest.raises(ResolutionError):
            resolve(config(max_memory={**memory, device: memory[device] + nbytes - 1}), chain(8, 8, 8))


def test_devices_are_named_in_words() -> None:
    error = refusal({"max_memory": {0: 4, 1: 4, "cpu": 4}}, chain(8, 8))
    assert "device 0, device 1 and cpu together may hold 12 B" in error.message
    assert (
        "devices 0 to 3 together may hold 8 B"
        in refusal({"max_memory": dict.fromkeys(range(4), 2)}, chain(8, 8)).message
    )


def test_where_bytes_would_do_it_says_that_blocks_do_not_fit_and_whether_that_is_certain() -> None:
    error = refusal({"max_memory": {0: 10, 1: 10}}, chain(8, 8, 4))
    assert "missing" not in error.message
    assert (
        "total memory is sufficient, but the model's indivisible blocks cannot be packed into it"
        in error.message
    )
    assert (
        "every way to place its blocks whole was ruled out; a larger budget alone would do: 2 B on device "
        "0 or device 1" in error.message
    )
    assert error.shortfall_bytes == 2


def test_a_search_that_was_given_up_says_so() -> None:
    """A subset of 48 even sizes cannot fill two devices whose budgets are odd.

    It depth first search does not see in 10,000 steps.
    """
    sizes = [2 * (1000 + 37 * at * at % 911) for at in range(48)]
    half = sum(sizes) // 4 * 2 + 1
    error = refusal({"max_memory": {0: half, 1: sum(sizes) - half}}, chain(*sizes))
    assert "the search was given up after 10,0" in error.message


def test_a_block_that_is_larger_than_every_device_is_named() -> None:
    error = refusal({"max_memory": {0: 10, 1: 10, "cpu": 20}, "forbid": {"cpu": ["m0"]}}, chain(11, 2))
    assert (
        "'m0' takes 11 B, which is more than any device may hold: 10 B (it must not lie on cpu)"
        in error.message
    )


def test_what_constraints_leave_only_to_some_devices_is_counted_by_itself() -> None:
    error = refusal(
        {"max_memory": {0: 10, 1: 10, "cpu": 100}, "forbid": {"cpu": ["m0", "m1", "m2"]}}, chain(8, 8, 8, 8)
    )
    assert (
        "what pins and forbid leave only to device 0 and device 1 takes 24 B, and they together may hold 20 B"
        in error.message
    )


def test_headroom_that_makes_budgets_smaller_is_named() -> None:
    error = refusal({"max_memory": {0: 20}, "headroom": "50%"}, chain(8, 8))
    assert "6 B are missing (6 bytes; alone 1" in error.message
    assert "device 0 may hold 10 B beside 10 B of headroom" in error.message


def test_no_budget_is_suggested_that_the_machine_does_not_have() -> None:
    inventory = Inventory.from_manifest(EXAMPLES / "llama-3-70b.manifest.yaml")
    error = refusal({"max_memory": {0: "90%"}}, inventory, preset("1x4090"))
    assert not any(change.startswith("raise") for change in error.changes)
    assert error.changes[0].startswith("offer cpu")


def test_where_the_machine_gives_the_budgets_the_disk_can_still_be_offered() -> None:
    inventory = Inventory.from_manifest(EXAMPLES / "llama-3-70b.manifest.yaml")
    machine = preset("1x4090")
    assert machine is not None
    error = refusal({}, inventory, machine)
    assert error.overrides[0] == ("offload.folder=./offload",)
    resolve(overridden({}, error.overrides[0]), inventory, machine=machine)


def test_keys_with_a_backend_are_set_with_their_backend() -> None:
    keys = {"max_memory": {"cuda:0": 10}}
    error = refusal(keys, chain(8, 8))
    assert error.overrides[0] == ('max_memory={"cuda:0": 16}',)
    resolve(overridden(keys, error.overrides[0]), chain(8, 8))


def test_an_error_reads_with_its_changes_once() -> None:
    text = str(refusal({"max_memory": {0: 10}}, chain(8, 8)))
    assert text.count("offer cpu in max_memory") == 1
    assert "help: try one with --set max_memory.0=16" in text


@pytest.mark.parametrize("ties", [(), (("m0.weight", "m19999.weight"),)])
def test_a_large_model_is_answered_in_bounded_time(ties: tuple[tuple[str, ...], ...]) -> None:
    inventory = chain(*[7] * 20_000, ties=ties)
    with at_most(million_steps=90):
        error = refusal({"max_memory": dict.fromkeys(range(8), 10_000)}, inventory)
    assert len(error.changes) == 3
