"""The checked-in examples: every one validates, resolves and has a fresh lock.

Their writers agree with what is checked in.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import devmap
from devmap.api.resolution import resolve_file
from devmap.config.values.strategy import WorkloadKind
from devmap.plan.lock import lock_path, render_lock

EXAMPLES = Path(__file__).parent.parent / "examples"
CONFIGS = sorted(path for path in EXAMPLES.glob("*.devmap.yaml"))
MODELS = {
    "llama-2-7b",
    "llama-3-70b",
    "mixtral-8x7b",
    "bloom-176b",
    "gpt-j-6b",
    "gpt-oss-120b",
    "gpt2-xl",
    "llama-3-70b-awq",
    "t5-11b",
    "whisper-large-v3",
}


def test_each_model_stands_on_two_machines_or_more() -> None:
    machines = {model: [path for path in CONFIGS if path.name.startswith(f"{model}.")] for model in MODELS}
    assert {model for model, paths in machines.items() if len(paths) < 2} == set()


def test_the_three_workloads_are_shown() -> None:
    workloads = [devmap.read_config(path).workload for path in CONFIGS]
    assert {workload.kind for workload in workloads if workload is not None} == set(WorkloadKind)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name.removesuffix(".devmap.yaml"))
def test_the_example_resolves_to_its_lock(config: Path) -> None:
    plan, _ = resolve_file(config)
    assert lock_path(config).read_text(encoding="utf-8") == render_lock(plan)


def test_all_examples_validate_locked_within_a_second_of_cpu_time_and_without_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "devmap", "validate", "--locked", str(EXAMPLES)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stdout + result.stderr
    # A bound on work, not a timing: the figure that counts is measured by hand, this one only catches a heavy
    # import.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_the_locks_are_fresh() -> None:  # the manifests: tests/inventory/test_examples.py
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "make_locks.py"), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_manifest_of_a_70b_model_is_small() -> None:
    assert (EXAMPLES / "llama-3-70b.manifest.yaml").stat().st_size < 20_000


def test_the_demo_shows_the_main_job() -> None:
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "agrees" in result.stdout
    for code in ("DM201", "DM203", "DM401"):
        assert code in result.stdout
