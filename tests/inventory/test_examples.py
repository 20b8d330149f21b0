from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devmap.inventory.manifests.manifest import read_manifest
from tests.effort import at_most

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {
    "all-minilm-l6-v2": 0.09,
    "bloom-176b": 352.5,
    "gpt-j-6b": 24.2,
    "gpt-oss-120b": 65.2,
    "gpt2-xl": 6.2,
    "llama-2-7b": 13.5,
    "llama-3-70b": 141.1,
    "llama-3-70b-awq": 39.8,
    "mixtral-8x7b": 93.4,
    "t5-11b": 45.2,
    "whisper-large-v3": 3.1,
}
"""GB of the public checkpoints."""


@pytest.mark.parametrize("name", SIZES)
def test_an_example_has_the_size_of_its_public_checkpoint(name: str) -> None:
    path = EXAMPLES / f"{name}.manifest.yaml"
    inventory = read_manifest(path)
    assert inventory.nbytes / 1e9 == pytest.approx(SIZES[name], rel=0.01, abs=0.01)
    assert inventory.no_split_module_classes
    assert path.stat().st_size < 20_000


def test_reading_all_manifests_takes_a_fraction_of_a_second() -> None:
    with at_most(million_steps=15):
        for path in sorted(EXAMPLES.glob("*.manifest.yaml")):
            read_manifest(path)


def test_the_manifests_are_fresh() -> None:
    command = [sys.executable, str(EXAMPLES / "make_manifests.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
