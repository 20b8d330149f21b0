"""What models over several processes gave: run once, in processes of their own, beside the other tests.

Each program imports what it needs once and forks its ranks, which takes most of a minute of two cores. They
are started when tests that need them have been collected, one after another, so that the tests before these
hide the wait.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Found = dict[int, list[dict[str, Any]]]
"""By the number of processes, what each rank found."""

PROGRAMS = {"ended": "rank_program", "loaded": "load_program", "stage_runs": "stage_runs"}
"""The program behind each fixture."""


@dataclass(eq=False)
class Program:
    """A program under way, and what it left."""

    name: str
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="devmap-ranks-")))
    ended: threading.Event = field(default_factory=threading.Event)
    problem: str = ""

    def run(self) -> None:
        try:
            ran = subprocess.run(
                [sys.executable, "-m", f"tests.distributed.{self.name}", str(self.folder)],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            self.problem = ran.stderr[-4000:] if ran.returncode else ""
        except subprocess.TimeoutExpired:
            self.problem = f"{self.name} did not end within 600 s"
        finally:
            self.ended.set()

    def result(self) -> Path:
        """Wait for the program; return the folder that it wrote to."""
        self.ended.wait()
        assert not self.problem, self.problem
        return self.folder


_programs: dict[str, Program] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the programs that the collected tests need."""
    if session.config.option.collectonly:
        return
    needed = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, program in PROGRAMS.items():
        if fixture in needed:
            _programs[fixture] = Program(program)
    if _programs:
        threading.Thread(target=_run_all, args=(list(_programs.values()),), daemon=True).start()


def _run_all(programs: list[Program]) -> None:
    for program in programs:
        program.run()


def pytest_sessionfinish() -> None:
    """Remove what the programs wrote."""
    for program in _programs.values():
        shutil.rmtree(program.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stage_runs() -> Found:
    folder = _programs["stage_runs"].result()
    return {
        size: [json.loads((folder / f"found-{size}-{rank}.json").read_text()) for rank in range(size)]
        for size in (2, 4)
    }


@pytest.fixture(scope="session")
def ended() -> dict[str, list[dict[str, Any]]]:
    """What the ranks of each scenario printed, and how they ended."""
    text = (_programs["ended"].result() / "ended.json").read_text(encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


@pytest.fixture(scope="session")
def loaded() -> dict[str, Any]:
    """What the ranks of each case found, and the plain model."""
    text = (_programs["loaded"].result() / "found.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
