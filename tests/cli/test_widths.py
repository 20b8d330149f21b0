"""Nothing breaks a word or parts a figure from its unit at 60, 80 and 120 columns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LLAMA = "examples/llama-3-70b.2x4090.devmap.yaml"
COMMANDS = [
    ("rules",),
    ("explain", "DM206"),
    ("plan", LLAMA),
    ("plan", "examples/t5-11b.2xa100.devmap.yaml"),
    ("plan", LLAMA, "--why", "model.layers.30"),
    ("plan", LLAMA, "--set", "max_memory.cpu=1GB"),
    ("diff", LLAMA, "examples/llama-3-70b.fastest.devmap.yaml"),
    ("diff", LLAMA, "examples/t5-11b.4xv100.devmap.yaml"),
    ("inspect", "examples/t5-11b.manifest.yaml"),
    ("validate", "tests/faults"),
]
_ALL_COLUMNS = """
import io, os, sys
from contextlib import redirect_stderr, redirect_stdout
from devmap.cli.main import cli
from devmap.cli.exits import guarded
for line in sys.stdin.read().splitlines():
    columns, *words = line.split("\\t")
    os.environ["COLUMNS"] = columns
    print("=====", line)
    seen = io.StringIO()
    with redirect_stdout(seen), redirect_stderr(seen):
        guarded(lambda: cli.main(words, prog_name="devmap", standalone_mode=False))
    print(seen.getvalue())
"""


@pytest.fixture(scope="module")
def shown() -> dict[tuple[int, tuple[str, ...]], str]:
    """What every command prints at every width, all from one process."""
    asked = ["\t".join([str(columns), *words]) for columns in (60, 80, 120) for words in COMMANDS]
    outcome = subprocess.run(
        [sys.executable, "-c", _ALL_COLUMNS],
        input="\n".join(asked),
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    found = {}
    for part in outcome.stdout.split("===== ")[1:]:
        head, _, text = part.partition("\n")
        columns, *words = head.split("\t")
        found[int(columns), tuple(words)] = text
    assert len(found) == len(asked)
    return found


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_line_fits_and_no_figure_loses_its_unit(
    shown: dict[tuple[int, tuple[str, ...]], str], columns: int, words: tuple[str, ...]
) -> None:
    text = shown[columns, words]
    assert text.strip()
    assert "a bug in devmap" not in text
    lines = text.splitlines()
    for line, following in pairwise(lines):
        parted = re.search(r"\d$", line) and re.match(r"\s*((?:[KMGT]i?)?B|[mu]?s)\b", following)
        assert not parted, f"{line}\n{following}"
    for line in lines:
        # A place is one word, for terminals that open it; a source line and an example are shown as they
        # stand.
        if re.match(r"\s*(-->|\d+ \|)", line) or (words[0] == "explain" and line.startswith("    ")):
            continue
        assert len(line) <= columns, line


def test_what_goes_to_a_pipe_keeps_its_lines_whole() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    outcome = subprocess.run(
        [sys.executable, "-m", "devmap", "rules"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(
        re.match(r"[A-Z]+\d{3}  [a-z0-9-]+ +(error|warning|note) +\S", line)
        for line in outcome.stdout.splitlines()
    )


def test_a_tied_head_says_what_it_is_tied_to(shown: dict[tuple[int, tuple[str, ...]], str]) -> None:
    text = shown[80, ("plan", "examples/t5-11b.2xa100.devmap.yaml")]
    assert re.search(r"lm_head +0 B  device 0, tied to shared", text)
