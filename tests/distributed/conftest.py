"""What models over several processes gave: run once, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Found = dict[int, list[dict[str, Any]]]
"""By the number of processes, what each rank found."""


@pytest.fixture(scope="session")
def stage_runs(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("stages")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.distributed.stage_runs", str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return {
        size: [json.loads((folder / f"found-{size}-{rank}.json").read_text()) for rank in range(size)]
        for size in (2, 4)
    }
