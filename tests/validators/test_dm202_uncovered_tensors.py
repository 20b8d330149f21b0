"""DM202 uncovered-tensors: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.checks.wording import fold

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_of_many_places_eight_are_named_and_the_rest_is_counted(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    leaves = [path for path in example.modules if not example.children[path]]
    # Every other leaf: no run of numbers folds, and nine places or more are left.
    keys = ", ".join(f"{path}: 0" for path in leaves[::2])
    found = findings_of(context_of(f"{HEAD}device_map: {{{keys}}}\nmax_memory: {{0: 2GB}}\n"), "DM202")
    assert len(found) == 9
    (rest,) = [finding for finding in found if "other place" in finding.message]
    named = sum(int(finding.message.split(", ")[1].split()[0]) for finding in found if finding is not rest)
    uncovered = sum(len(example.own_tensors[path]) for path in leaves[1::2])
    places = len(
        fold(example, [tensor.name for path in leaves[1::2] for tensor in example.own_tensors[path]])
    )
    assert rest.message == f"no key covers {uncovered - named} more tensors in {places - 8} other places"
    assert {finding.path for finding in found} == {("device_map",)}
    assert {finding.help for finding in found} == {'add a key for them, or "": auto to have the rest placed'}
    for finding in found:
        assert finding.position is not None
        assert finding.position.start.column == 1


def test_it_is_silent_without_a_model(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert (
        findings_of(
            context_of(
                "version: 1\nmodel: {checkpoint: ./none}\ndevice_map: {lm_head: 0}\nmax_memory: {0: 2GB}\n"
            ),
            "DM202",
        )
        == ()
    )


def test_eight_places_are_all_of_them_where_there_are_eight(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    leaves = [path for path in example.modules if not example.children[path]]
    keys = ", ".join(f"{path}: 0" for path in leaves if path not in leaves[1:17:2])
    found = findings_of(context_of(f"{HEAD}device_map: {{{keys}}}\nmax_memory: {{0: 2GB}}\n"), "DM202")
    assert len(found) == 8
    assert not any("other place" in finding.message for finding in found)
