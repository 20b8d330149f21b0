"""`scripts/accelerator_check` rehearsed on simulated devices, as it will run on real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "accelerator_check"


def check(*arguments: str, out: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Run it; its status, rows and table."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--simulated", *arguments],
        capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "OUT": str(out), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    report = json.loads((out / "accelerator_check.json").read_text())
    return done.returncode, report["rows"], (out / "accelerator_check.txt").read_text()


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, Any]], str]:
    return check(out=tmp_path_factory.mktemp("rehearsal"))


def test_every_section_runs_and_every_row_is_right(rehearsed: tuple[int, list[dict[str, Any]], str]) -> None:
    status, rows, _ = rehearsed
    assert [row for row in rows if not row["ok"]] == []
    assert status == 0
    assert {row["section"] for row in rows} == {"a", "b", "c", "e"}


def test_placed_models_are_bit_for_bit_the_resident_one_and_stream(
    rehearsed: tuple[int, list[dict[str, Any]], str],
) -> None:
    compared = [row for row in rehearsed[1] if "bit_for_bit" in row]
    assert {row["model"] for row in compared} == {"llama", "mixtral", "t5", "whisper"}
    assert all(row["bit_for_bit"] and row["tokens_equal"] for row in compared)
    assert sum(row["streamed_bytes"] > 0 for row in compared) >= 12
    (poisoned,) = (row for row in rehearsed[1] if row.get("placement") == "poisoned slots, late copies")
    assert (poisoned["differing"], poisoned["passes"]) == (0, 20)
    assert poisoned["streamed_bytes"] > 0


def test_the_table_says_met_or_missed_for_each_row(rehearsed: tuple[int, list[dict[str, Any]], str]) -> None:
    _, rows, table = rehearsed
    assert table.count("\nmet ") == len(rows)
    assert "met    a llama: balanced over two" in table
    assert "GB/s" in table


def test_a_section_past_its_time_costs_only_itself(tmp_path: Path) -> None:
    status, rows, table = check("--only", "e", "--minutes", "0", "--least-seconds", "0.5", out=tmp_path)
    assert status == 1
    (row,) = rows
    assert (row["section"], row["ok"], row["ended"]) == ("e", False, "stopped after 0.5 s")
    assert "MISSED e the section itself" in table
