"""DM302 device-not-in-machine: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.config.model.machines import preset

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "max_memory: {0: 2GB, 'cuda:4': 2GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: "
            "4GB}, cpu: {memory: 16GB}}}\n",
            [(("max_memory", "cuda:4"), "the machine has no device 4")],
        ),
        (
            HEAD
            + "device_map: {'': 3}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: "
            "16GB}}}\n",
            [(("device_map", ""), "the machine has no device 3")],
        ),
        (
            HEAD + "forbid: {6: [lm_head]}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: "
            "{memory: 16GB}}}\n",
            [(("forbid", "6"), "the machine has no device 6")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM302")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 1}\nmax_memory: {1: 2GB, disk: 2GB}\n"
        "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM302") == ()


def test_a_machine_with_a_name_is_called_by_it_and_each_device_has_its_caret(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    found = findings_of(
        context_of(HEAD + "device_map: {'': 3}\nmax_memory: {3: 2GB}\n", machine=preset("2x4090")), "DM302"
    )
    assert [finding.message for finding in found] == ["the machine '2x4090' has no device 3"] * 2
    assert [finding.help for finding in found] == ["it has device 0, device 1, cpu and disk"] * 2
    # Under the value in the map, where a key is a module, and under the key where that is the device.
    assert [
        (finding.position.start.line, finding.position.start.column) for finding in found if finding.position
    ] == [(3, 18), (4, 14)]


def test_it_is_silent_where_the_machine_is_unknown(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(HEAD + "max_memory: {3: 2GB}\nmachine: 9x9999\n"), "DM302") == ()
