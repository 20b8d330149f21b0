"""Tensors and small objects from rank to rank.

Every call here is made by all the ranks that it concerns, in the same order: the ranks run the same outer
code, so each knows without asking what the others send.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devmap.distributed.failures import Watch

__all__ = ["Traffic", "Wire", "another_group"]

T = TypeVar("T")

_MOST_UNDER_WAY = 256
"""Sends that may be on their way at once."""
_MOST_BYTES_UNDER_WAY = 256 << 20
"""Bytes of tensors that may be on their way at once, if they are more than one."""


@dataclass
class Traffic:
    """What went over the wire from and to this rank, in bytes and tensors."""

    sent_bytes: int = 0
    received_bytes: int = 0
    sent: int = 0
    received: int = 0


@dataclass(eq=False)
class Wire:
    """The process group of the stages, one rank each."""

    group: dist.ProcessGroup
    device: torch.device
    """Where tensors lie that the group's backend takes: the CPU for gloo, the accelerator for nccl."""
    control: dist.ProcessGroup
    """A gloo group of the same ranks, for objects."""
    watch: Watch | None = None
    """What finds ranks that fail while others wait for them; None where nobody looks."""
    traffic: Traffic = field(default_factory=Traffic)
    rank: int = field(init=False)
    """This rank, in the group."""
    size: int = field(init=False)
    """How many ranks the group has."""
    _under_way: deque[tuple[dist.Work, torch.Tensor]] = field(default_factory=deque)
    """Sends, with the tensors that must live until they are done."""
    _bytes_under_way: int = 0

    def __post_init__(self) -> None:
        self.rank = dist.get_rank(self.group)
        self.size = dist.get_world_size(self.group)

    @classmethod
    def over(cls, group: dist.ProcessGroup | None = None, *, watch: Watch | None = None) -> Wire:
        """Return the wire over a group, or over all ranks. Collective: every rank of the group calls it."""
        whole = group if group is not None else dist.group.WORLD
        assert whole is not None
        if dist.get_backend(whole) == "gloo":
            return cls(whole, torch.device("cpu"), whole, watch)
        control = another_group(whole, "gloo")
        return cls(whole, torch.device("cuda", torch.cuda.current_device()), control, watch)

    def guard(self) -> AbstractContextManager[None]:
        """Tell the other ranks what is raised inside, where somebody looks for it."""
        return nullcontext() if self.watch is None else self.watch.guard()

    def look(self) -> None:
        """Raise what is known of other ranks' faults, where somebody looks for them."""
        if self.watch is not None:
            self.watch.look()

    def _wait(self, call: Callable[[], T]) -> T:
        """Make a call that blocks until other ranks do their part."""
        return call() if self.watch is None else self.watch.wait(call)

    def send(self, tensor: torch.Tensor, ranks: Sequence[int]) -> None:
        """Begin to send a tensor, of a shape and dtype that the receivers know; it may change meanwhile."""
        self._reap()
        ready = tensor.detach().to(self.device).contiguous()
        if ready.numel() == 0:
            return
        if ready.is_complex():
            ready = torch.view_as_real(ready)
        for rank in ranks:
            work = dist.isend(ready, group=self.group, group_dst=rank)
            assert work is not None
            self._under_way.append((work, ready))
            self._bytes_under_way += ready.nbytes
            self.traffic.sent += 1
            self.traffic.sent_bytes += ready.nbytes

    def receive(self, shape: Sequence[int], dtype: torch.dtype, rank: int) -> torch.Tensor:
        """Return what a rank sends: a contiguous tensor on the wire's device."""
        made = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        if made.numel() == 0:
            return made
        flat = torch.view_as_real(made) if made.is_complex() else made
        self._wait(lambda: dist.recv(flat, group=self.group, group_src=rank))
        self.traffic.received += 1
        self.traffic.received_bytes += made.nbytes
        return made

    def from_one(self, content: Any, rank: int) -> Any:
        """Return the object that one rank gives, on every rank. `content` counts on that rank alone."""
        box = [content if self.rank == rank else None]
        self._wait(lambda: dist.broadcast_object_list(box, group=self.control, group_src=rank))
        return box[0]

    def from_all(self, content: Any) -> list[Any]:
        """Return what each rank gives, in their order, on every rank."""
        found: list[Any] = [None] * self.size
        self._wait(lambda: dist.all_gather_object(found, content, group=self.control))
        return found

    def _reap(self) -> None:
        """Let go of what was sent long ago, so that a long generation does not keep all that it sent.

        The receivers of the oldest tensors come to them without this rank's help, since every rank runs the
        same code: the rank that is farthest behind waits for nothing but what is sent already. Gloo only
        says of a send that it is done when it is waited for.
        """
        while len(self._under_way) > _MOST_UNDER_WAY or (
            len(self._under_way) > 1 and self._bytes_under_way > _MOST_BYTES_UNDER_WAY
        ):
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        work, tensor = self._under_way.popleft()
        self._bytes_under_way -= tensor.nbytes
        self._wait(work.wait)

    def settle(self) -> None:
        """Wait until everything that was sent is taken over by the receivers."""
        while self._under_way:
            self._finish_oldest()


def another_group(group: dist.ProcessGroup, backend: str | None = None) -> dist.ProcessGroup:
    """Return a new group of the same ranks, of the same backend unless one is named. Collective."""
    ranks = dist.get_process_group_ranks(group)
    made = dist.new_group(
        ranks,
        backend=backend or dist.get_backend(group),
        # Processes outside of the group do not come here; where there are none, torch needs no such care.
        use_local_synchronization=len(ranks) < dist.get_world_size(),
    )
    assert isinstance(made, dist.ProcessGroup)
    return made
