"""Wishes that contradict each other are named by their config keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devmap.errors import ResolutionError
from devmap.planning.problem.constraints import MapProblem
from devmap.planning.resolve import resolve
from tests.planning.planning_models import chain, config, decoder

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

TWO = {0: 20, 1: 20}
TIED = chain(1, 1, 1, ties=(("m0.weight", "m2.weight"),))


def refusal(inventory: Inventory, **keys: Any) -> ResolutionError:
    with pytest.raises(ResolutionError) as caught:
        resolve(config(**{"max_memory": TWO, **keys}), inventory)
    return caught.value


@pytest.mark.parametrize(
    ("inventory", "keys", "named", "path"),
    [
        (
            chain(1, 1, 1),
            {"device_map": {"m0": 0, "m1": 1, "": "auto"}, "same_device": [["m0", "m1"]]},
            ["same_device[0]", "device_map[m0]", "device_map[m1]"],
            ("same_device", 0),
        ),
        (
            chain(1, 1, 1),
            {"device_map": {"m0": 0, "m2": 1, "": "auto"}, "same_device": [["m0", "m1"], ["m1", "m2"]]},
            ["same_device[0]", "same_device[1]", "device_map[m0]", "device_map[m2]"],
            ("same_device", 1),
        ),
        (
            chain(1, 1, 1),
            {"device_map": {"m0": 0, "": "auto"}, "same_device": [["m0", "m1"]], "forbid": {0: ["m1"]}},
            ["device_map[m0]", "same_device[0]", "forbid.0"],
            ("forbid", "0", 0),
        ),
        (
            TIED,
            {"device_map": {"m0": 0, "": "auto"}, "forbid": {0: ["m2"]}},
            ["device_map[m0]", "forbid.0"],
            ("forbid", "0", 0),
        ),
        (
            chain(1, 1),
            {"device_map": {"m0": 0, "": "auto"}, "forbid": {0: ["m0"]}},
            ["device_map[m0]", "forbid.0"],
            ("forbid", "0", 0),
        ),
        (chain(1, 1), {"forbid": {0: ["m1"], 1: ["m1"]}}, ["forbid.0", "forbid.1"], ("forbid", "0", 0)),
        (
            chain(1, 1),
            {"same_device": [["m0", "m1"]], "forbid": {0: ["m1"], 1: ["m0"]}},
            ["forbid.0", "forbid.1", "same_device[0]"],
            ("forbid", "0", 0),
        ),
        (
            decoder(2),
            {
                "device_map": {"lm_head": "disk", "": "auto"},
                "workload": "training",
                "max_memory": {0: 10**6, "disk": 10**6},
            },
            ["device_map[lm_head]", "workload"],
            ("workload",),
        ),
    ],
)
def test_constraints_in_conflict_are_named_by_their_keys(
    inventory: Inventory, keys: dict[str, Any], named: list[str], path: tuple[str | int, ...]
) -> None:
    error = refusal(inventory, **keys)
    assert error.message == f"constraints in conflict: {' and '.join(named)}"
    problem = error.problems[0]
    assert isinstance(problem, MapProblem)
    assert (problem.code, problem.path) == ("DM210", path)


def test_one_reason_is_told_once_however_many_modules_it_is_about() -> None:
    error = refusal(decoder(30), forbid={0: ["model.layers.*"]}, max_memory={0: 10**6})
    assert error.message == "constraints in conflict: forbid.0"
    assert len(error.problems) == 1


def test_independent_conflicts_are_told_together() -> None:
    error = refusal(chain(1, 1, 1), device_map={"m0": 0, "m1": 1, "": "auto"}, forbid={0: ["m0"], 1: ["m1"]})
    assert [problem.message for problem in error.problems] == [
        "device_map sends 'm0' to device 0, and 'forbid' keeps it off device 0",
        "device_map sends 'm1' to device 1, and 'forbid' keeps it off device 1",
    ]


def test_a_tie_that_pins_part_is_no_conflict() -> None:
    plan = resolve(
        config(device_map={"m0": 0, "m2": 1, "": "auto"}, forbid={0: ["m2"]}, max_memory=TWO), TIED
    )
    assert plan.device_map["m2"] == 1


def test_an_empty_group_of_same_device_shifts_no_other() -> None:
    error = refusal(chain(1, 1), device_map={"m0": 0, "m1": 1, "": "auto"}, same_device=[[], ["m0", "m1"]])
    assert error.message.startswith("constraints in conflict: same_device[1]")
