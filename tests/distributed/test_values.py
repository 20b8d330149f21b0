"""Values of several ranks, each a thread: numbers as in one process, and nothing sent that is not used."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.distributed.values import Borders, Remote
from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZE = 3
CPU = torch.device("cpu")


class _Wire:
    """What a rank's borders ask of a wire, over queues."""

    def __init__(self, rank: int, queues: dict[tuple[int, int], queue.Queue[torch.Tensor]]) -> None:
        self.rank, self.size, self.device = rank, SIZE, CPU
        self.received = 0
        self._queues = queues

    def send(self, tensor: torch.Tensor, ranks: Sequence[int]) -> None:
        for rank in ranks:
            self._queues[self.rank, rank].put(tensor.clone())

    def receive(self, shape: Sequence[int], dtype: torch.dtype, rank: int) -> torch.Tensor:
        self.received += 1
        found = self._queues[rank, self.rank].get(timeout=5)
        assert (tuple(found.shape), found.dtype) == (tuple(shape), dtype)
        return found


def on_every_rank(code: Callable[[Borders], Any]) -> list[Any]:
    """Run the same code as each rank; return what each gave, or raise what one raised."""
    queues: dict[tuple[int, int], queue.Queue[torch.Tensor]] = {
        (one, other): queue.Queue() for one in range(SIZE) for other in range(SIZE)
    }
    found: list[Any] = [None] * SIZE

    def run(rank: int) -> None:
        borders = Borders(_Wire(rank, queues), CPU)  # type: ignore[arg-type]  # what is used of one
        try:
            with torch.no_grad():
                found[rank] = code(borders)
        except Exception as error:  # noqa: BLE001 - raised again below
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        if isinstance(each, Exception):
            raise each
    assert all(sent.empty() for sent in queues.values()), "something was sent that nobody took"
    return found


def given_by(borders: Borders, stage: int, tensor: torch.Tensor) -> Any:
    """Return a remote that one rank has."""
    return borders.held_by(stage, tensor.shape, tensor.dtype, tensor.clone())


def used_by(borders: Borders, stage: int, remote: torch.Tensor) -> torch.Tensor | None:
    """Return what a part of a stage gets as an argument; nothing on other ranks."""
    assert isinstance(remote, Remote)
    borders.need(remote.value, 1 << stage)
    return remote.here() if borders.wire.rank == stage else None


START = torch.arange(12, dtype=torch.float32).reshape(3, 4)

OPERATIONS: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    lambda one, other: one * 2 + other,
    lambda one, other: one[:, -1:, None].expand(3, 1, 4).reshape(3, 4) - other,
    lambda one, other: torch.cat([one, other], dim=0)[1:4],
    lambda one, other: one.t().contiguous().view(3, 4) + other.mean(dim=-1, keepdim=True),
    lambda one, _: one.chunk(2, dim=1)[1].repeat(1, 2).float(),
    lambda one, other: torch.where(one > other, one, other).to(torch.float64).to(torch.float32),
]


STEPS = st.tuples(
    st.sampled_from(["operation", "part", "everywhere"]),
    st.integers(0, len(OPERATIONS) - 1),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, SIZE - 1),
)


def _part(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.tanh(one) + other.sum()


def _part_of(borders: Borders, stage: int, operands: Sequence[Remote]) -> Remote:
    used = [used_by(borders, stage, each) for each in operands]
    given = [each for each in used if each is not None]
    return borders.held_by(stage, (3, 4), torch.float32, _part(*given) if given else None)


@settings(max_examples=15)
@given(st.lists(STEPS, max_size=8))
def test_every_rank_has_the_numbers_of_one_process(steps: list[tuple[str, int, int, int, int]]) -> None:
    plain = [START + number for number in range(4)]
    for kind, operation, one, other, _ in steps:
        if kind != "everywhere":
            plain[one] = (OPERATIONS[operation] if kind == "operation" else _part)(plain[one], plain[other])

    def spread(borders: Borders) -> list[torch.Tensor]:
        held: list[Any] = [given_by(borders, number % SIZE, START + number) for number in range(4)]
        for kind, operation, one, other, stage in steps:
            if kind == "operation":
                held[one] = OPERATIONS[operation](held[one], held[other])
            elif kind == "part":
                held[one] = _part_of(borders, stage, (held[one], held[other]))
            else:
                held[one].plain()
        return [each.plain() for each in held]

    for found in on_every_rank(spread):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, plain, strict=True))


def test_an_operation_is_done_where_its_result_is_used() -> None:
    """The last position of hidden states goes to the head's rank; the positions before it go nowhere."""

    def code(borders: Borders) -> int:
        hidden = given_by(borders, 0, torch.ones(1, 1000, 8))
        used_by(borders, 0, hidden[:, -1:] * 3)
        wire: Any = borders.wire
        return int(wire.received)

    assert on_every_rank(code) == [0, 0, 0]


def test_what_depends_on_numbers_is_done_on_every_rank() -> None:
    def code(borders: Borders) -> tuple[float, list[int]]:
        value = given_by(borders, 1, START)
        return float(value.sum().item()), value.nonzero()[0].tolist()

    assert on_every_rank(code) == [(66.0, [0, 1])] * SIZE


def test_what_is_made_by_shape_needs_no_numbers() -> None:
    def code(borders: Borders) -> tuple[bool, int]:
        value = borders.lost((2, 3), torch.float32, "a weight", 1)
        made = torch.zeros_like(value) + value.new_ones(3)
        return type(made) is torch.Tensor, int(made.sum())

    assert on_every_rank(code) == [(True, 6)] * SIZE


def test_a_write_shows_on_every_rank() -> None:
    def code(borders: Borders) -> list[float]:
        value = given_by(borders, 2, START)
        value[0] = 5.0
        value += 1
        found: list[float] = value.plain()[:2, 0].tolist()
        return found

    assert on_every_rank(code) == [[6.0, 5.0]] * SIZE


def test_a_write_before_a_result_is_used_is_refused() -> None:
    def code(borders: Borders) -> None:
        value = given_by(borders, 0, START)
        later = value * 2
        value += 1
        later.plain()

    with pytest.raises(UsageError, match="writes into an operand"):
        on_every_rank(code)


def test_numbers_that_no_rank_hands_out_are_named() -> None:
    def code(borders: Borders) -> None:
        weight = borders.lost((4, 4), torch.float32, "'lm_head.weight', which stage 2 has", 2)
        (given_by(borders, 0, START) @ weight).plain()

    with pytest.raises(UsageError, match=r"asks for 'lm_head.weight', which stage 2 has"):
        on_every_rank(code)


def test_a_weight_that_outer_code_uses_stays_with_its_stage() -> None:
    """As Whisper's positions: the stage that has the weight adds it, the others hand it the rest."""
    weight = torch.full((4,), 0.5)

    def code(borders: Borders) -> list[float] | None:
        mine = borders.wire.rank == 1
        held = weight if mine else borders.lost((4,), torch.float32, "a weight", 1)
        added = given_by(borders, 0, START) + held * 2
        used = used_by(borders, 1, added[0])
        later = borders.held_by(1, (4,), torch.float32, used)
        assert torch.equal(later.plain(), START[0] + 1)
        return None if used is None else used.tolist()

    assert on_every_rank(code) == [None, [1.0, 2.0, 3.0, 4.0], None]


def test_whether_a_tensor_moves_changes_nothing() -> None:
    """On one rank `.to` finds the tensor where it is, on another it does not: the value is the same."""

    def code(borders: Borders) -> torch.Tensor:
        borders.device = CPU if borders.wire.rank else torch.device("meta")
        value = given_by(borders, 0, START).to("cpu")
        used_by(borders, 2, value)
        found: torch.Tensor = value.plain()
        return found

    assert all(torch.equal(each, START) for each in on_every_rank(code))
