"""DM210 contradicted-constraint: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.errors import ResolutionError
from devmap.inventory.checkpoint import Damage

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "device_map: {'': 0}\nforbid: {0: [model.layers.0.mlp]}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("forbid", "0", 0),
                    (
                        "'model.layers.0.mlp' is forbidden on device 0, and the device map puts "
                        "'model.layers.0.mlp.gate_proj.weight' there"
                    ),
                )
            ],
        ),
        (
            HEAD
            + "device_map: {'': 0, model.norm: 1}\nsame_device: [[model.norm, lm_head]]\nmax_memory: {0: "
            "2GB, 1: 2GB}\n",
            [
                (
                    ("same_device", 0),
                    (
                        "'model.norm' and 'lm_head' must share a device, and the device map puts them on "
                        "device 0 and device 1"
                    ),
                )
            ],
        ),
        (  # each place and each tensor of its own, and no more than three names of a long group
            HEAD + "device_map: {'': 0, model.norm: 1}\nforbid: {0: [lm_head.weight, model.layers.0], 1: "
            "[model.norm.weight]}\n"
            "same_device: [[model.norm.weight, lm_head], [lm_head], [model.layers.0, model.layers.1, "
            "model.layers.2, model.norm]]\n"
            "max_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("forbid", "0", 0),
                    (
                        "'lm_head.weight' is forbidden on device 0, and the device map puts 'lm_head.weight' "
                        "there"
                    ),
                ),
                (
                    ("forbid", "0", 1),
                    (
                        "'model.layers.0' is forbidden on device 0, and the device map puts "
                        "'model.layers.0.self_attn.q_proj.weight' there"
                    ),
                ),
                (
                    ("forbid", "1", 0),
                    (
                        "'model.norm.weight' is forbidden on device 1, and the device map puts "
                        "'model.norm.weight' there"
                    ),
                ),
                (
                    ("same_device", 0),
                    (
                        "'model.norm.weight' and 'lm_head' must share a device, and the device map puts them "
                        "on device 0 and device 1"
                    ),
                ),
                (
                    ("same_device", 2),
                    (
                        "'model.layers.0' and 'model.layers.1' and 'model.layers.2' must share a device, "
                        "and the device map puts them on "
                        "device 0 and device 1"
                    ),
                ),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM210")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': auto, lm_head: 0}\n"
        "forbid: {1: [lm_head]}\nsame_device: [[model.norm, lm_head]]\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "device_map: auto\nforbid: {0: [lm_head]}\nsame_device: [[model.norm, lm_head]]\nmax_memory: "
        "{0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM210") == ()


def test_wishes_that_leave_no_device_between_them_are_said_where_each_stands(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    wishes = (
        "forbid: {0: [lm_head, model.norm], 1: [lm_head, model.layers.0]}\nsame_device: "
        "[[model.norm, model.layers.0]]\n"
    )
    found = findings_of(
        context_of(HEAD + "device_map: auto\n" + wishes + "max_memory: {0: 2GB, 1: 2GB}\n"), "DM210", "DM401"
    )
    assert [(finding.code, finding.path, finding.message, finding.help) for finding in found] == [
        (
            "DM210",
            ("forbid", "0", 0),
            (
                "no offered device may hold 'lm_head': 'forbid' keeps 'lm_head' off device 0, 'forbid' keeps "
                "'lm_head' off device 1"
            ),
            "remove one of these constraints",
        ),
        (
            "DM210",
            ("forbid", "0", 1),
            (
                "no offered device may hold 'model.norm' and 'model.layers.0', which share a device: "
                "'forbid' keeps 'model.norm' off device 0, "
                "'forbid' keeps 'model.layers.0' off device 1"
            ),
            "remove one of these constraints",
        ),
    ]


def test_what_the_map_shows_is_not_said_again_for_the_plan(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = HEAD + "device_map: {'': 0}\nforbid: {0: [lm_head]}\nmax_memory: {0: 2GB, 1: 2GB}\n"
    context = context_of(text)
    assert context.plan_error is not None
    assert [finding.path for finding in findings_of(context, "DM210")] == [("forbid", "0", 0)]


def test_what_else_a_plan_lacks_is_no_wish(context_of: ContextOf, findings_of: FindingsOf) -> None:
    error = ResolutionError("no plan fits", problems=[Damage("DM401", "too little memory")])
    assert (
        findings_of(context_of(HEAD + "max_memory: {0: 2GB}\n", plan=None, plan_error=error), "DM210") == ()
    )
