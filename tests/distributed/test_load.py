"""`devmap.load` and `devmap run` of a config with nodes, in the processes that torchrun would start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import devmap
from devmap.errors import UsageError
from tests.distributed.load_program import CONFIG

Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("load")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.distributed.load_program", str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    result: Found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize("case", ["loads", "lock"])
def test_every_rank_gives_the_plain_model_s_tokens_with_all_tiers_in_use(found: Found, case: str) -> None:
    first, second = found[case]
    assert first["tokens"] == second["tokens"] == found["plain"]["tokens"]
    assert not set(first["owned"]) & set(second["owned"])
    assert {*first["tiers"], *second["tiers"]} == {"0", "cpu", "disk"}


def test_training_gives_the_plain_model_s_losses_and_its_checkpoint_is_read_back(found: Found) -> None:
    for rank in found["trains"]:
        assert rank["losses"] == pytest.approx(found["plain"]["losses"], rel=1e-5)
        assert rank["reloads"]


def test_run_prints_every_rank_and_what_it_sent(found: Found) -> None:
    assert [rank["rank"] for rank in found["runs"]] == [0, 1]
    text = found["runs"][0]["text"]
    assert "output [1, 8, 96]" in text
    assert "rank 0:    a/0 on " in text
    assert "rank 1:    b/0 on " in text


def test_another_config_is_refused_by_every_rank_in_the_same_words(found: Found) -> None:
    first, second = found["other"]
    assert first == second
    assert first["error"] == "RankError"
    assert "rank 1 (" in first["message"]
    assert "config is " in first["message"]


def test_a_checkpoint_that_one_rank_lacks_is_told_by_both(found: Found) -> None:
    first, second = found["absent"]
    assert first == second
    assert first["error"] == "RankError"
    assert "gone" in first["message"]


def test_one_process_alone_is_told_how_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "c.devmap.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    with pytest.raises(UsageError, match="torchrun did not start this one"):
        devmap.load(path)
