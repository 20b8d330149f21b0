"""DM310 unknown-machine: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import DevmapError
from devmap.inventory.stored.checkpoint import Damage

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


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
