from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devmap.config.values.device import CPU, Device, Tier
from devmap.errors import LockError
from devmap.plan.diff import diff_plans
from devmap.plan.lock import lock_of, lock_path, parse_lock, read_lock, render_lock, write_lock
from devmap.plan.model import DeviceUse, Placement, Plan

GPU = Device(Tier.ACCELERATOR, 0)
PLAN = Plan(
    device_map={"a": 0, "b": "cpu"},
    placements=(Placement("a", GPU, GPU, 5), Placement("b", CPU, GPU, 7)),
    devices=(DeviceUse(GPU, 20, 5), DeviceUse(CPU, 20, 7)),
    strategy="auto",
    inventory_fingerprint="sha256:1",
    config_fingerprint="sha256:2",
)


def test_a_lock_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.devmap.lock.yaml"
    write_lock(PLAN, path)
    lock = read_lock(path)
    assert lock == lock_of(PLAN)
    assert not lock.is_hand_edited
    assert lock.executing("b") == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_edited_lock_is_found_by_its_digest() -> None:
    edited = render_lock(PLAN).replace("b: cpu", "b: 0")
    assert parse_lock(edited.encode(), "x").is_hand_edited


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "x:2: expected a lock of version 1"),
        ("b: cpu", "b: b", "is not a valid device"),
        ("strategy: auto", "strategy: 3", "x:5: 'strategy' must be text"),
        ("capacity: 20", "capacity: -1", "whole number of bytes"),
        ("dtype: null", "dtype: null\nextra: 1", "'extra' is not a key of a lock"),
    ],
)
def test_a_wrong_lock_names_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(LockError) as caught:
        parse_lock(render_lock(PLAN).replace(old, new, 1).encode(), "x")
    assert message in caught.value.message


def test_a_lock_stands_beside_its_config() -> None:
    assert lock_path(Path("a/x.devmap.yaml")) == Path("a/x.devmap.lock.yaml")


def test_a_diff_tells_what_moves_and_the_bytes_on_both_sides() -> None:
    moved = dataclasses.replace(
        PLAN,
        device_map={"": 0},
        placements=(Placement("a", GPU, GPU, 5), Placement("b", GPU, GPU, 7)),
        devices=(DeviceUse(GPU, 20, 12),),
    )
    diff = diff_plans(PLAN, moved)
    assert [(move.path, move.before, move.after) for move in diff.moves] == [("b", "cpu", 0)]
    assert [(one.device, one.before_bytes, one.after_bytes) for one in diff.devices] == [
        (0, 5, 12),
        ("cpu", 7, None),
    ]
    assert diff_plans(PLAN, PLAN).is_empty


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from planning_models import config, decoder
from devmap.inventory.model import Inventory, Tensor
from devmap.plan.lock import write_lock
from devmap.planning.resolve import resolve
model = decoder(8)
named = Tensor("schicht_\\u00fc.weight", (9,), "uint8")
tensors = {**model.tensors, named.name: named}
model = Inventory({**model.modules, "schicht_\\u00fc": "Linear"}, tensors, (), ("Block",))
plan = resolve(config(device_map="balanced", max_memory={0: 900, 1: 900, "cpu": 900, "disk": 9000}), model)
write_lock(plan, Path(sys.argv[2]))
"""


def test_a_lock_has_the_same_bytes_whatever_the_hash_seed_and_the_locale(tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "planning"
    environments = [
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONHASHSEED": "42", "LC_ALL": "de_DE.ISO-8859-1", "TZ": "Asia/Tokyo", "COLUMNS": "40"},
    ]
    for number, extra in enumerate(environments):
        target = tmp_path / str(number)
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder), str(target)], check=True, env={**os.environ, **extra}
        )
    contents = {(tmp_path / str(number)).read_bytes() for number in range(len(environments))}
    assert len(contents) == 1
    content = contents.pop()
    assert b"\r" not in content
    assert "schicht_\u00fc".encode() in content or b"schicht_\\u00fc" in content


def test_a_lock_of_a_profile_stands_beside_that_of_the_config() -> None:
    config = Path("a/x.devmap.yaml")
    assert lock_path(config, "laptop") == Path("a/x.laptop.devmap.lock.yaml")
    assert lock_path(config, "../../etc/x") == Path("a/x...%2F..%2Fetc%2Fx.devmap.lock.yaml")
    assert len({lock_path(config, name) for name in ("a b", "a%20b", "a/b", "a%2Fb")}) == 4
