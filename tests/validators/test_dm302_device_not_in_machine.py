"""DM302 device-not-in-machine: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.machines import preset

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


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
