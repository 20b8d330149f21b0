"""`devmap.load` and `devmap run` of a config with nodes, in the processes that torchrun would start."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import devmap
from devmap.errors import UsageError
from tests.distributed.load_program import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

Found = dict[str, Any]


@pytest.mark.parametrize("case", ["loads", "lock"])
def test_every_rank_gives_the_plain_model_s_tokens_with_all_tiers_in_use(loaded: Found, case: str) -> None:
    first, second = loaded[case]
    assert first["tokens"] == second["tokens"] == loaded["plain"]["tokens"]
    assert not set(first["owned"]) & set(second["owned"])
    assert {*first["tiers"], *second["tiers"]} == {"0", "cpu", "disk"}


def test_training_gives_the_plain_model_s_losses_and_its_checkpoint_is_read_back(loaded: Found) -> None:
    for rank in loaded["trains"]:
        assert rank["losses"] == pytest.approx(loaded["plain"]["losses"], rel=1e-5)
        assert rank["reloads"]


def test_run_prints_every_rank_and_what_it_sent(loaded: Found) -> None:
    assert [rank["rank"] for rank in loaded["runs"]] == [0, 1]
    text = loaded["runs"][0]["text"]
    assert "output [1, 8, 96]" in text
    assert "rank 0:    a/0 on " in text
    assert "rank 1:    b/0 on " in text


def test_another_config_is_refused_by_every_rank_in_the_same_words(loaded: Found) -> None:
    first, second = loaded["other"]
    assert first == second
    assert first["error"] == "RankError"
    assert "rank 1 (" in first["message"]
    assert "config is " in first["message"]


def test_a_checkpoint_that_one_rank_lacks_is_told_by_both(loaded: Found) -> None:
    first, second = loaded["absent"]
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


def test_nodes_in_a_file_of_the_machine_are_nodes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    machine = CONFIG.partition("machine:\n")[2].partition("max_memory")[0]
    (tmp_path / "two.yaml").write_text(dedent(machine), encoding="utf-8")
    path = tmp_path / "c.devmap.yaml"
    path.write_text(
        "version: 1\nmodel: {checkpoint: model}\nmachine: ./two.yaml\nmax_memory: {0: 120KB}\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="torchrun did not start this one"):
        devmap.load(path)
