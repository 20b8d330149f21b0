"""`devmap validate --watch`: what is watched, and that each change is seen once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devmap.api.checks.watching import changes, watched_files

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).parents[2] / "validators" / "devmap_validators" / "example.manifest.yaml"
GOOD = "version: 1\nextends: base.yaml\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "base.yaml").write_text(
        "version: 1\nabstract: true\npolicies: [./team.yaml]\n", encoding="utf-8"
    )
    (tmp_path / "x.devmap.yaml").write_text(GOOD, encoding="utf-8")
    return tmp_path


def test_a_config_is_watched_with_all_that_it_stands_on(here: Path) -> None:
    names = {path.name for path in watched_files(["x.devmap.yaml"])}
    stands_on = {"x.devmap.yaml", "base.yaml", "example.manifest.yaml", "x.devmap.lock.yaml", "team.yaml"}
    assert stands_on | {"devmap.toml", "pyproject.toml"} <= names
    assert here.exists()


def write(name: str, text: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (write("x.devmap.yaml", GOOD + "# more\n"), "x.devmap.yaml"),
        (write("base.yaml", "version: 1\nabstract: true\n"), "base.yaml"),
        (write("example.manifest.yaml", "manifest: 1\n"), "example.manifest.yaml"),
        (write("devmap.toml", "strict = true\n"), "devmap.toml"),
        (write("y.devmap.yaml", GOOD), "y.devmap.yaml"),
        (lambda: Path("x.devmap.yaml").unlink(), "x.devmap.yaml"),
    ],
    ids=["config", "parent", "manifest", "settings come", "config comes", "config goes"],
)
def test_a_change_is_told_once_with_its_name(change: Callable[[], object], name: str, here: Path) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            change()
        if len(pauses) == 6:
            raise KeyboardInterrupt

    told: list[set[str]] = []

    def watch() -> None:
        told.extend({Path(each).name for each in changed} for changed in changes(["."], sleep=sleep))

    with pytest.raises(KeyboardInterrupt):
        watch()
    assert told == [set(), {name}]
    assert pauses == [0.5] * 6
    assert here.exists()


def test_the_command_checks_again_and_ends_with_130(here: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "devmap",
        "validate",
        "x.devmap.yaml",
        "--watch",
        "--format",
        "concise",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while "watching for changes" not in process.stderr.readline():
            pass
        (here / "x.devmap.yaml").write_text(GOOD.replace("0: 2GB", "0: 2gb"), encoding="utf-8")
        while "watching for changes" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "x.devmap.yaml:4:17: error[DM104]" in output
    assert process.returncode == 130


def test_watching_stands_alone(here: Path) -> None:
    command = [sys.executable, "-m", "devmap", "validate", "x.devmap.yaml", "--watch", "--fix"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=here)
    assert done.returncode == 2
    assert "--watch stands without" in done.stderr
