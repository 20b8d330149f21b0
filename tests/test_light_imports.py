"""The light commands never load torch: held in processes of their own, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "llama-3-70b.2xa100.devmap.yaml"

_WATCHED = """
import sys
from devmap.cli.main import cli
status = cli.main({arguments!r}, standalone_mode=False)
loaded = {{name.partition(".")[0] for name in sys.modules}}
heavy = sorted(loaded & {{"torch", "transformers", "numpy", "accelerate"}})
print("HEAVY", heavy, "STATUS", status)
"""


def run_watched(*arguments: str) -> str:
    script = _WATCHED.format(arguments=list(arguments))
    result = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", str(EXAMPLE)),
        ("resolve", str(EXAMPLE)),
        ("plan", str(EXAMPLE)),
        ("inspect", str(ROOT / "examples" / "llama-3-70b.manifest.yaml")),
        ("diff", str(EXAMPLE), str(ROOT / "examples" / "llama-3-70b.2x4090.devmap.yaml")),
        ("explain", "DM201"),
        ("rules",),
        ("schema",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_light_command_loads_neither_torch_nor_transformers(arguments: tuple[str, ...]) -> None:
    assert "HEAVY [] STATUS 0" in run_watched(*arguments)


def test_inspecting_headers_loads_neither_torch_nor_transformers(minilm_folder: Path) -> None:
    assert "HEAVY [] STATUS 0" in run_watched("inspect", str(minilm_folder))


def test_importing_devmap_loads_nothing_heavy() -> None:
    script = (
        "import sys, devmap; print(sorted({'torch', 'pydantic', 'yaml', 'click', "
        "'rich', 'jsonschema'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
