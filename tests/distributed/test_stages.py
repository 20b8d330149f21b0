"""Models over two and four processes: what they give is what the plain model gives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.stage_runs import FAMILIES, OVER_FOUR, STREAMED, TRAINED, TRAINED_OVER_FOUR, WAYS

Found = dict[int, list[dict[str, Any]]]

CASES = [(2, name) for name in FAMILIES] + [(4, name) for name in OVER_FOUR]


@pytest.mark.parametrize(("processes", "name"), CASES)
def test_every_rank_gives_what_the_plain_model_gives(stage_runs: Found, processes: int, name: str) -> None:
    for rank in stage_runs[processes]:
        for way in WAYS:
            found = rank[name][way]
            assert found["is_plain"]
            assert found["largest_difference"] <= (2e-6 if way == "forward" else 0), way


@pytest.mark.parametrize("name", STREAMED)
def test_a_stage_streams_from_its_own_cpu_and_disk(stage_runs: Found, name: str) -> None:
    for rank in stage_runs[2]:
        found = rank[f"{name} streamed"]
        assert [found[way]["largest_difference"] for way in WAYS[:4]] == [0] * 4
        assert found["forward"]["largest_difference"] <= 2e-6
        assert found["streamed_bytes"] > 0


@pytest.mark.parametrize(("processes", "name"), CASES)
def test_stages_share_no_weight_but_tied_ones(stage_runs: Found, processes: int, name: str) -> None:
    owned = [set(rank[name]["owned"]) for rank in stage_runs[processes]]
    assert all(owned)
    for one in range(processes):
        for other in range(one):
            assert not owned[one] & owned[other]


def test_a_rank_reads_its_own_bytes_alone(stage_runs: Found) -> None:
    for rank in stage_runs[2]:
        assert rank["bytes"]["owned"] > 4_000_000
        assert rank["bytes"]["owned"] <= rank["bytes"]["read"] <= 1.02 * rank["bytes"]["owned"]


def test_a_token_crosses_each_border_once(stage_runs: Found) -> None:
    """Six passes of one sequence: the hidden states go on, the last logits come to all."""
    first, last = (rank["llama"]["greedy"] for rank in stage_runs[2])
    hidden, words = 32 * 4, 96 * 4
    assert first == {**first, "sent": 6, "sent_bytes": (9 + 5) * hidden}
    assert last == {**last, "sent": 6, "sent_bytes": 6 * words}


def test_hidden_states_go_to_the_next_stage_alone(stage_runs: Found) -> None:
    ranks = [rank["llama-tied"]["greedy"] for rank in stage_runs[4]]
    assert [rank["sent"] for rank in ranks] == [6, 6, 6, 18]
    assert {rank["sent_bytes"] for rank in ranks[:3]} == {(9 + 5) * 32 * 4}


def test_what_cannot_be_right_is_refused_by_name(stage_runs: Found) -> None:
    for rank, found in enumerate(stage_runs[2]):
        refused = found["refusals"]
        assert refused["attentions"].startswith("output_attentions cannot be given")
        assert refused["hidden_states"].startswith("output_hidden_states cannot be given")
        assert "is in training mode" in refused["training"]
        foreign = "lm_head.weight" if rank == 0 else "model.embed_tokens.weight"
        assert f"which stage {1 - rank} has" in refused["foreign weight"], foreign
        assert refused["other arguments"] == "ranks 0 and 1 call the model with different arguments"


@pytest.mark.parametrize(
    ("processes", "name"), [(2, name) for name in TRAINED] + [(4, name) for name in TRAINED_OVER_FOUR]
)
def test_training_gives_the_plain_models_losses_and_gradients(
    stage_runs: Found, processes: int, name: str
) -> None:
    """Two steps of two lengths: the second holds only if the first one's gradients, ties' too, were right."""
    for rank in stage_runs[processes]:
        found = rank[f"{name} trained"]
        for got, expected in [*found["losses"], *found["norms"]]:
            assert got == pytest.approx(expected, rel=2e-6)
        assert max(found["gradients"]) < 1e-5


def test_a_checkpoint_of_two_stages_loads_into_four(stage_runs: Found) -> None:
    """Weights and what AdamW keeps of them, bit for bit; the tied head too."""
    for rank in stage_runs[4]:
        assert rank["kept"]["same"]
        assert all(rank["kept"]["same"].values())
        assert "is no checkpoint of stages" in rank["kept"]["absent"]
    assert stage_runs[4][3]["kept"]["same"]["lm_head.weight"]


def test_microbatches_at_once_give_the_same_tokens(stage_runs: Found) -> None:
    """Greedy and by beams, until an end token; what is sampled stays one batch, and is equal too."""
    for processes, ranks in stage_runs.items():
        for rank in ranks:
            streamed = ["streamed in microbatches"] if processes == 2 else []
            for case in [*(f"{name} in microbatches" for name in STREAMED), *streamed]:
                assert rank[case]["at once"] == 2
                assert rank[case]["equal"] == {"greedy": True, "beams": True, "again": True, "sampled": True}
