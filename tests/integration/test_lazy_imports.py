"""What `devmap validate` loads: nothing that the config at hand has no use for.

Each check in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
MANIFEST = EXAMPLES / "llama-3-70b.manifest.yaml"
GOOD = (
    f"version: 1\nmodel: {{manifest: {MANIFEST}}}\nmax_memory: "
    f"{{0: 80GB, 1: 80GB, cpu: 20GB}}\nheadroom: 5%\n"
)

_SCRIPT = """
import sys
from pydantic import BaseModel
made = []
whole = BaseModel.model_json_schema.__func__
def counted(cls, *a, **k):
    made.append(cls.__name__)
    return whole(cls, *a, **k)
BaseModel.model_json_schema = classmethod(counted)
from devmap.cli.main import cli
status = cli.main({arguments!r}, standalone_mode=False)
watched = ("torch", "transformers", "numpy", "rich", "jsonschema", "xml.sax", "click.shell_completion")
loaded = sorted(name for name in watched if name in sys.modules)
print("LOADED", loaded, "SCHEMAS", sorted(set(made)), "STATUS", status)
"""


def loaded(tmp_path: Path, text: str, *options: str) -> str:
    config = tmp_path / "x.devmap.yaml"
    config.write_text(text, encoding="utf-8")
    script = _SCRIPT.format(arguments=["validate", *options, str(config)])
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    return next(line for line in result.stdout.splitlines() if line.startswith("LOADED"))


@pytest.mark.parametrize("output_format", ["text", "concise", "json", "sarif", "github", "gitlab"])
def test_a_good_config_needs_neither_rich_nor_jsonschema_nor_the_schema_of_its_own_shape(
    output_format: str, tmp_path: Path
) -> None:
    assert loaded(tmp_path, GOOD, "--format", output_format) == "LOADED [] SCHEMAS [] STATUS 0"


def test_jsonschema_is_there_for_policies(tmp_path: Path) -> None:
    assert "LOADED ['jsonschema'] SCHEMAS []" in loaded(tmp_path, f"{GOOD}policies: [inference]\n")


def test_the_schema_is_made_to_say_which_key_was_meant(tmp_path: Path) -> None:
    assert loaded(tmp_path, f"{GOOD}max_memry: {{}}\n").endswith("SCHEMAS ['PlacementConfig'] STATUS 1")
