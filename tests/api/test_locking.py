"""The plan of a config file: its lock's, or an error that says what to do.

A new one only where there is none, or on request.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import save_file
from torch import nn

import devmap
from devmap.api.locks.locking import choose_plan
from devmap.api.models import loading
from devmap.api.models.running import run
from devmap.config.values.device import CPU, Device, Tier
from devmap.errors import LockError
from devmap.plan.lock import Lock, lock_of, write_lock
from devmap.planning.locked_plan import fault_of, plan_of_lock
from devmap.planning.resolve import resolve
from devmap.runtime.handle import Handle
from tests.planning.planning_models import chain, config

if TYPE_CHECKING:
    from pathlib import Path

MODEL = chain(8, 8, 8)
BUDGETS = {0: 24, 1: 24, "cpu": 100}


def locked(path: Path, **keys: Any) -> Any:
    parsed = config(max_memory=BUDGETS, **keys)
    write_lock(resolve(parsed, MODEL), path.with_name("x.devmap.lock.yaml"))
    return parsed


def test_a_fresh_lock_gives_the_plan_that_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "x.devmap.yaml"
    parsed = locked(path, device_map="balanced")
    chosen = choose_plan(parsed, MODEL, path)
    assert chosen.lock == tmp_path / "x.devmap.lock.yaml"
    assert chosen.plan == resolve(parsed, MODEL)
    assert choose_plan(parsed, MODEL, path, profile="laptop").lock is None


@pytest.mark.parametrize(
    ("parsed", "model", "words"),
    [
        (
            config(max_memory=BUDGETS, device_map="balanced"),
            MODEL,
            "is stale: it was made from another state of the config",
        ),
        (config(max_memory=BUDGETS), chain(8, 8), "was made for another model"),
    ],
)
def test_a_stale_lock_is_an_error_and_is_never_replaced_in_silence(
    parsed: Any, model: Any, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.devmap.yaml"
    locked(path)
    with pytest.raises(LockError, match=words) as caught:
        choose_plan(parsed, model, path)
    assert f"devmap resolve {path} --lock" in caught.value.help
    assert "--no-lock" in caught.value.help


def test_an_edited_lock_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.devmap.yaml"
    parsed = locked(path)
    lock = tmp_path / "x.devmap.lock.yaml"
    lock.write_text(lock.read_text().replace("capacity: 100", "capacity: 90"), encoding="utf-8")
    with pytest.raises(LockError, match="edited by hand"):
        choose_plan(parsed, MODEL, path)


def test_a_lock_is_passed_over_where_overrides_change_what_it_was_made_from_and_only_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.devmap.yaml"
    parsed = locked(path)
    other = choose_plan(config(max_memory=BUDGETS, device_map="balanced"), MODEL, path, overridden=True)
    assert (other.lock, other.passed_over) == (None, tmp_path / "x.devmap.lock.yaml")
    assert choose_plan(parsed, MODEL, path, overridden=True).lock is not None


def test_the_lock_s_map_is_applied_where_this_devmap_plans_differently() -> None:
    parsed = config(max_memory=BUDGETS, device_map="balanced")
    lock = lock_of(resolve(parsed, MODEL))
    moved = rewritten(lock, device_map={"m0": 0, "m1": 0, "m2": "cpu"}, executes_on={"m2": 0})
    assert fault_of(moved, parsed, MODEL) == ""
    with pytest.raises(LockError, match="it would execute streamed blocks on other devices"):
        plan_of_lock(
            rewritten(lock, device_map={"m0": 0, "m1": 0, "m2": "cpu"}, executes_on={"m2": 1}),
            parsed,
            MODEL,
            machine=None,
        )
    plan = plan_of_lock(moved, parsed, MODEL, machine=None)
    assert plan.device_map == {"m0": 0, "m1": 0, "m2": "cpu"}
    assert [placement.executes_on for placement in plan.placements] == [Device(Tier.ACCELERATOR, 0)] * 3
    assert plan.placements[2].home == CPU
    assert (plan.strategy, plan.config_fingerprint) == (lock.strategy, lock.config_fingerprint)


def rewritten(lock: Lock, **changes: Any) -> Lock:
    changed = dataclasses.replace(lock, **changes)
    return dataclasses.replace(changed, digest=changed.expected_digest)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A config of two layers, with its lock."""
    plain = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    save_file(
        {name: tensor.contiguous() for name, tensor in plain.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        "version: 1\nmodel: {checkpoint: model.safetensors}\nmax_memory: {cpu: 1MB, disk: 1MB}\n",
        encoding="utf-8",
    )
    write_lock(devmap.resolve(devmap.read_config(path)), tmp_path / "x.devmap.lock.yaml")
    return path


def empty() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8, device="meta"), nn.Linear(8, 2, device="meta"))


def test_load_fails_on_a_stale_lock_unless_it_is_told_to_plan_anew(tiny: Path) -> None:
    devmap.load(tiny, model=empty(), progress=False)
    tiny.write_text(tiny.read_text().replace("cpu: 1MB", "cpu: 2MB"), encoding="utf-8")
    with pytest.raises(LockError, match="is stale"):
        devmap.load(tiny, model=empty(), progress=False)
    assert isinstance(devmap.load(tiny, model=empty(), use_lock=False, progress=False).devmap, Handle)


def test_load_applies_a_ready_plan_and_resolves_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = devmap.resolve(devmap.read_config(tiny))
    monkeypatch.setattr(loading, "resolve", lambda *_, **__: pytest.fail("resolved again"))
    monkeypatch.setattr(loading, "choose_plan", lambda *_, **__: pytest.fail("resolved again"))
    handle = devmap.load(tiny, plan=plan, model=empty(), progress=False).devmap
    assert isinstance(handle, Handle)
    assert handle.plan is plan


def test_run_resolves_once_and_says_which_lock_it_used(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        f"version: 1\nmodel: {{checkpoint: '{minilm_folder}'}}\nmax_memory: {{0: 60MB, cpu: 100MB}}\n",
        encoding="utf-8",
    )
    plan = devmap.resolve(devmap.read_config(path))
    write_lock(plan, tmp_path / "x.devmap.lock.yaml")
    calls = []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return resolve(*arguments, **keywords)

    monkeypatch.setattr("devmap.planning.locked_plan.resolve", counted)
    monkeypatch.setattr("devmap.api.resolution.plan_for", counted)
    done = run(path, simulated=True, passes=1, progress=False)
    assert len(calls) == 1
    assert done.lock == tmp_path / "x.devmap.lock.yaml"
    assert done.plan == plan
    assert run(path, simulated=True, passes=1, progress=False, use_lock=False).lock is None
    assert len(calls) == 2
    assert (
        run(
            path, simulated=True, passes=1, progress=False, overrides=["max_memory.cpu=90MB"]
        ).lock_passed_over
        == done.lock
    )
