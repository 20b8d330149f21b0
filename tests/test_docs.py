"""The pages of docs/: what the tutorial shows is what the commands print, and every link leads somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.yaml.reader import read_yaml

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^)\s]+)\)")


def run_shown(command: str, folder: Path) -> str:
    """What a shown command prints, stdout and stderr, with 100 columns and no colours.

    `| grep WORD` is known.
    """
    shown, _, wanted = command.partition(" | grep ")
    words = shlex.split(shown)
    assert words[0] == "devmap", (
        f"the tutorial shows {command!r}, and only devmap's own commands are run here"
    )
    outcome = subprocess.run(
        [sys.executable, "-m", "devmap", *words[1:]],
        cwd=folder,
        env={
            **os.environ,
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "PYTHONIOENCODING": "utf-8",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert outcome.returncode in {0, 1}, outcome.stderr
    printed = outcome.stdout + outcome.stderr
    return (
        "".join(line for line in printed.splitlines(keepends=True) if wanted in line) if wanted else printed
    )


def fresh_tutorial(text: str, folder: Path) -> str:
    """The tutorial with what its commands print now, in the order in which a reader calls them."""

    def fresh(found: re.Match[str]) -> str:
        language, title, body = found.groups()
        if title is not None:
            (folder / title).write_text(body, encoding="utf-8")
        if language != "console":
            return found[0]
        commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"$ {one}\n{run_shown(one, folder)}" for one in commands) + "```"

    return _FENCE.sub(fresh, text)


def test_the_tutorial_shows_what_the_commands_print(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "llama-3-70b.manifest.yaml", tmp_path)
    text = TUTORIAL.read_text(encoding="utf-8")
    fresh = fresh_tutorial(text, tmp_path)
    if request.config.getoption("--update-golden"):
        TUTORIAL.write_text(fresh, encoding="utf-8", newline="\n")
        text = fresh
    assert text == fresh


def test_every_link_of_a_page_leads_to_a_page() -> None:
    for page in DOCS.rglob("*.md"):
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            if not re.match(r"https?://|#|mailto:", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page}: {target}"


def test_the_readme_is_readable_where_the_repository_is_not_beside_it() -> None:
    links = _LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


def test_every_page_has_a_place_in_the_site() -> None:
    def pages(entries: object) -> list[str]:
        if isinstance(entries, str):
            return [entries]
        below = entries.values() if isinstance(entries, dict) else entries
        assert not isinstance(below, (int, float))
        return [page for entry in below for page in pages(entry)]  # type: ignore[attr-defined]  # a list or its values

    settings = read_yaml((ROOT / "mkdocs.yml").read_bytes(), "mkdocs.yml").data
    assert settings is not None
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "rules"}
    assert set(pages(settings["nav"])) == there, "a new page needs a line under nav in mkdocs.yml"
