"""What the README prints is what the commands print.

Every `$ devmap` line is run, `--update-golden` writes the output anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.cli.main import COMMANDS

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
_CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
_TABLE = re.compile(r"(<!-- commands:[^>]*-->\n).*?(<!-- /commands -->)", re.DOTALL)


def run_shown(command: str) -> str:
    """What a shown command prints, stdout and stderr, with 100 columns and no colours."""
    words = shlex.split(command)
    assert words[0] == "devmap", f"the README shows {command!r}, and only devmap's own commands are run here"
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "devmap", *words[1:]],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert result.returncode in {0, 1}, result.stderr
    return result.stdout + result.stderr


def rendered(block: str) -> str:
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"$ {command}\n{run_shown(command)}" for command in commands)


def commands_table() -> str:
    rows = "".join(f"| `devmap {name}` | {summary} |\n" for name, summary in COMMANDS.items())
    return f"| command | does |\n| --- | --- |\n{rows}"


def fresh_readme(text: str) -> str:
    text = _TABLE.sub(lambda match: f"{match[1]}{commands_table()}{match[2]}", text)
    return _CONSOLE.sub(lambda match: f"```console\n{rendered(match[1])}```", text)


def test_the_readme_shows_what_the_commands_print(request: pytest.FixtureRequest) -> None:
    text = README.read_text(encoding="utf-8")
    fresh = fresh_readme(text)
    if request.config.getoption("--update-golden"):
        README.write_text(fresh, encoding="utf-8")
        return
    assert text == fresh


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
