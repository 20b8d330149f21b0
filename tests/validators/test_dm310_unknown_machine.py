"""DM310 unknown-machine: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.errors import DevmapError
from devmap.inventory.checkpoint import Damage

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "machine: 9x9999\n", [(("machine",), "there is no machine '9x9999'")]),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM310")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM310") == ()


def test_every_fault_of_a_machine_file_is_said(context_of: ContextOf, findings_of: FindingsOf) -> None:
    # Each with its place in that file, as a machine file's own faults have it.
    problems = [
        Damage("DM103", "box.yaml:2:3: a machine has devices"),
        Damage("DM104", "box.yaml:3:9: '4gb' is ambiguous"),
    ]
    error = DevmapError("the machine 'box.yaml' is wrong: 2 faults", help="mend it", problems=problems)
    found = findings_of(context_of(HEAD + "machine: box.yaml\n", machine_error=error), "DM310")
    assert [(finding.path, finding.message, finding.help) for finding in found] == [
        (("machine",), "box.yaml:2:3: a machine has devices", ""),
        (("machine",), "box.yaml:3:9: '4gb' is ambiguous", ""),
        (("machine",), "the machine 'box.yaml' is wrong: 2 faults", "mend it"),
    ]
