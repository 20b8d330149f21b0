"""What moves between two plans, locks or configs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.api.comparison import compare
from devmap.api.resolution import resolve_file
from devmap.errors import LockError, ResolutionError, UsageError
from devmap.plan.diff import PlanDiff, diff_locks, diff_plans
from devmap.plan.document import lock_of_document, plan_document
from devmap.plan.lock import lock_of, write_lock
from devmap.planning.resolve import resolve
from devmap.report.plan import render_plan_json
from devmap.report.plan_diff import render_diff, render_diff_json
from tests.planning.planning_models import chain, config, decoder, inventories, memories

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONFIG = (
    "version: 1\nmodel: {manifest: m.manifest.yaml}\ndevice_map: balanced\nmax_memory: {0: 10GB, 1: 10GB}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(EXAMPLES / "llama-2-7b.manifest.yaml", tmp_path / "m.manifest.yaml")
    profile = "profiles: {wide: {max_memory: {0: 20GB}}}\n"
    (tmp_path / "a.devmap.yaml").write_text(CONFIG + profile, encoding="utf-8")
    (tmp_path / "b.devmap.yaml").write_text(CONFIG.replace("balanced", "auto"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def moves(diff: PlanDiff) -> list[tuple[str, str, object, object]]:
    return [(move.path, move.last, move.before, move.after) for move in diff.moves]


def test_neighbours_that_move_alike_are_one_run_and_what_stays_between_parts_it() -> None:
    model = chain(1, 1, 1, 1, 1)
    before = resolve(config(device_map={"": 0}, max_memory={0: 9, 1: 9}), model)
    after = resolve(config(device_map={"": 1, "m2": 0}, max_memory={0: 9, 1: 9}), model)
    diff = diff_plans(before, after)
    assert moves(diff) == [("m0", "m1", 0, 1), ("m3", "m4", 0, 1)]


def test_layers_stand_in_their_order_whichever_side_names_them() -> None:
    model = decoder(12)
    before = resolve(
        config(device_map={"": 0, "model.layers[4-11]": 1}, max_memory={0: 10**6, 1: 10**6}), model
    )
    after = resolve(
        config(device_map={"": 0, "model.layers[10-11]": 1}, max_memory={0: 10**6, 1: 10**6}), model
    )
    assert moves(diff_plans(before, after)) == [("model.layers.4", "model.layers.9", 1, 0)]
    assert moves(diff_plans(after, before)) == [("model.layers.4", "model.layers.9", 0, 1)]


def test_a_new_executing_device_is_a_change_of_its_own() -> None:
    model = chain(30, 5, 5)
    before = resolve(config(device_map={"m0": 0, "": "cpu"}, max_memory={0: 50, 1: 50, "cpu": 50}), model)
    after = resolve(config(device_map={"m0": 1, "": "cpu"}, max_memory={0: 50, 1: 50, "cpu": 50}), model)
    changed = [
        (move.path, move.last, move.executed_before, move.executes_after)
        for move in diff_plans(before, after).moves
    ]
    assert changed == [("m0", "m0", 0, 1), ("m1", "m2", 0, 1)]


@given(inventories(), st.data())
def test_a_diff_tells_every_tensor_that_moves_and_no_other(inventory: Inventory, data: st.DataObject) -> None:
    try:
        plans = [
            resolve(config(max_memory=data.draw(memories(inventory.nbytes))), inventory) for _ in range(2)
        ]
    except ResolutionError:
        return
    before, after = map(lock_of, plans)
    diff = diff_locks(before, after, models=(inventory, inventory))
    moved = {name for name in inventory.tensors if before.home(name) != after.home(name)}
    told = sum(move.nbytes or 0 for move in diff.moves if move.before != move.after)
    owned = {group[0] for group in inventory.ties}
    tied = {name for group in inventory.ties for name in group} - owned
    assert told == sum(inventory.tensors[name].nbytes for name in moved - tied)
    assert diff.same_model
    for change in diff.devices:
        use = next((use for use in plans[1].devices if use.device.plain == change.device), None)
        assert change.after_bytes == (None if use is None else use.weight_bytes)
        assert change.reserved_after == (None if use is None else use.reserved_bytes)


def test_what_only_one_model_has_is_told_and_no_move() -> None:
    before, after = decoder(6), decoder(4)
    plans = [resolve(config(max_memory={0: 10**6}), model) for model in (before, after)]
    both = diff_locks(*map(lock_of, plans), models=(before, after))
    assert (both.only_before, both.only_after) == (("model.layers.4", "model.layers.5"), ())
    assert not both.same_model
    assert not both.moves
    text = render_diff(both)
    assert "different models" in text
    assert "- model.layers[4-5]: only in the model before" in text


def test_configs_locks_and_plan_documents_compare_in_any_pair(folder: Path) -> None:
    expected = compare("a.devmap.yaml", "b.devmap.yaml")
    assert expected.moves
    for name in ("a", "b"):
        plan, _ = resolve_file(f"{name}.devmap.yaml")
        write_lock(plan, folder / f"{name}.devmap.lock.yaml")
        (folder / f"{name}.json").write_text(render_plan_json(plan), encoding="utf-8")
    kinds = (".devmap.yaml", ".devmap.lock.yaml", ".json")
    for one in kinds:
        for other in kinds:
            found = compare(f"a{one}", f"b{other}")
            assert moves(found) == moves(expected)
            assert found.devices == expected.devices
    assert moves(compare(resolve_file("a.devmap.yaml")[0], "b.devmap.yaml")) == moves(expected)


def test_a_profile_of_either_side_is_picked(folder: Path) -> None:  # noqa: ARG001 - stands in the folder
    diff = compare("a.devmap.yaml", "a.devmap.yaml", profile_after="wide")
    assert not diff.same_config
    with pytest.raises(UsageError, match="this is not one"):
        compare("a.devmap.yaml", "x.json", profile_after="wide")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"kind": "devmap plan", "version": 1}', b"\xff", b"[" * 100_000]
)
def test_a_json_file_that_is_no_plan_says_so(folder: Path, content: bytes) -> None:
    (folder / "x.json").write_bytes(content)
    with pytest.raises(LockError, match=r"x\.json"):
        compare("x.json", "a.devmap.yaml")


def test_a_plan_document_reads_back_as_the_lock_of_its_plan() -> None:
    plan = resolve(config(max_memory={0: 60, 1: 25, "cpu": 15, "disk": 100}), chain(48, 7, 7, 7, 7, 7))
    document = json.loads(json.dumps(plan_document(plan)))
    lock, expected = lock_of_document(document, "x"), lock_of(plan)
    assert lock.expected_digest == expected.digest
    assert (lock.device_map, lock.executes_on, lock.devices) == (
        expected.device_map,
        expected.executes_on,
        expected.devices,
    )


def test_a_diff_as_json_has_stable_keys() -> None:
    model = chain(1, 1)
    diff = diff_plans(
        *(resolve(config(device_map={"": device}, max_memory={0: 9, 1: 9}), model) for device in (0, 1))
    )
    document = json.loads(render_diff_json(diff))
    assert list(document) == [
        "version",
        "kind",
        "same_model",
        "same_config",
        "moves",
        "devices",
        "only_before",
        "only_after",
    ]
    assert document["moves"] == [
        {"first": "", "last": "", "home": [0, 1], "executes_on": [0, 1], "bytes": None}
    ]
