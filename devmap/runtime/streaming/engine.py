"""The streaming engine of one model: its lanes, its readers, and the lock that forwards take turns by."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from devmap.errors import StreamError
from devmap.runtime.streaming.held_signals import HeldSignals
from devmap.runtime.streaming.saved_tensors import is_innermost, saved_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.config.values.device import Device
    from devmap.runtime.storage.homes import DiskHome, HostHome
    from devmap.runtime.storage.readers import Readers
    from devmap.runtime.streaming.counters import Counters
    from devmap.runtime.streaming.lanes import Lane
    from devmap.runtime.streaming.mapped_lanes import MappedLane
    from devmap.runtime.streaming.ring import Ring
    from devmap.runtime.streaming.streamed_block import StreamedBlock
    from devmap.runtime.streaming.unblocked_weights import DirectWeights

__all__ = ["Engine"]


@dataclass(eq=False)
class Engine:
    """Brings blocks in and takes them out.

    One block of one thread is in at a time (and what it calls): two threads that run the model take turns
    block by block, and both get right results.
    """

    readers: Readers
    counters: Counters
    lanes: Mapping[Device, Lane | MappedLane] = field(default_factory=dict)
    ring: Ring | None = None
    kept: dict[Device, dict[str, torch.Tensor]] = field(default_factory=dict)
    """Tied weights of several streamed blocks, by executing device and name: they stay there, beside the
    slots."""
    direct: DirectWeights | None = None
    """Weights without a block of their own."""
    _is_checked: bool = True
    """Whether files that weights stay mapped from have been looked at since the pass began."""
    _lock: Any = field(default_factory=threading.RLock)
    _process: int = field(default_factory=os.getpid)
    """The one that the threads run in."""
    _is_closed: bool = False
    _is_broken: bool = False
    """Whether an interrupt left things half done; they are put right by whoever has the lock next."""
    _inside: list[tuple[StreamedBlock, torch.autograd.graph.saved_tensors_hooks | None, int]] = field(
        default_factory=list
    )
    _values: weakref.WeakValueDictionary[str, torch.Tensor] = field(
        default_factory=weakref.WeakValueDictionary
    )

    def enter(self, block: StreamedBlock) -> None:
        """Bring a block in for its forward.

        Raises:
            StreamError: when it cannot be read. Nothing is held then, and the next call tries again.
        """
        with HeldSignals():
            self._enter(block)

    def _enter(self, block: StreamedBlock) -> None:
        self._require_own_process()
        self._lock.acquire()
        try:
            self._require_open()
            self._recover_if_broken()
            if not self._is_checked:  # once a pass, and where an error can be raised
                self.readers.files.require_maps()
                self._is_checked = True
            if block.depth == 0:
                self.lanes[block.device].bring(block)
                self._tell_others(block)
        except BaseException:
            self._lock.release()
            raise
        hooks = None
        if torch.is_grad_enabled():
            device = self.lanes[block.device].backend.torch_device
            hooks = saved_weights(block, device, lambda name: self.fetch(block.home, name, device))
        block.depth += 1
        self._inside.append((block, hooks, threading.get_ident()))
        if hooks is not None:
            hooks.__enter__()

    def leave(self, block: StreamedBlock, *, failed: bool = False) -> None:
        """Let a block go after its forward, whether that went well or not.

        Nothing happens if it did not come in.

        `failed` says that an error is on its way already.

        Raises:
            StreamError: when the forward wrote to a streamed weight.
        """
        with HeldSignals():
            self._leave(block, failed=failed)

    def _leave(self, block: StreamedBlock, *, failed: bool) -> None:
        if (
            not self._inside
            or self._inside[-1][0] is not block
            or self._inside[-1][2] != threading.get_ident()
        ):
            return
        hooks = self._inside[-1][1]
        try:
            if hooks is not None:
                hooks.__exit__()
            self._inside.pop()  # not before: what an interrupt finds here, it lets go of
            block.depth -= 1
            if block.depth == 0:
                self.lanes[block.device].free(block, failed=failed)
                self._tell_others(block)
        except Exception:
            self._release()
            raise
        self._release()  # not after an interrupt, which `unwind` follows

    def held_by_this_thread(self) -> int:
        """Return how many blocks this thread has in."""
        return sum(thread == threading.get_ident() for _, _, thread in self._inside)

    def unwind(self, held: int) -> None:
        """Let go of the blocks of this thread beyond the first `held`.

        A call was interrupted, wherever it was.

        May itself be interrupted, and called again.
        """
        with HeldSignals():
            self._unwind(held)

    def _unwind(self, held: int) -> None:
        self._is_broken = True
        if not self._lock._is_owned():  # noqa: SLF001 - what Condition asks of a lock
            return
        while self.held_by_this_thread() > held:
            block, hooks, _ = self._inside[-1]
            if hooks is not None and is_innermost(hooks):
                hooks.__exit__()
            self._inside.pop()
            block.depth -= 1
        if held == 0:
            try:
                self._recover_if_broken()
            finally:
                self._release()

    def _release(self) -> None:
        """Let other threads in, once no block of this one is in.

        Wholly, whatever an interrupt kept from being counted.
        """
        if self.held_by_this_thread():
            self._lock.release()
        elif self._lock._is_owned():  # noqa: SLF001 - as above
            self._lock._release_save()  # noqa: SLF001 - as above

    def _recover_if_broken(self) -> None:
        """Bring lanes and ring back to how they began.

        If an interrupt may have left one of their steps half done.
        """
        if not self._is_broken or self._inside:
            return
        for lane in self.lanes.values():
            lane.quiesce()
        self.readers.quiesce()
        if self.ring is not None:
            self.ring.reset()
        for lane in self.lanes.values():
            lane.reset()
        self._is_broken = False

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every thread from bringing a block in.

        Begins when the block that is in, if there is one, has run.
        """
        with self._lock:
            self._recover_if_broken()
            yield

    def _require_open(self) -> None:
        self._require_own_process()
        if self._is_closed:
            raise StreamError(
                "the plain module was given back while this call ran",
                help="call the model again: it is a plain one now",
            )

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise StreamError(
                "this process was forked from one that streams this model, "
                "and the threads that stream it have "
                "stayed there",
                help="load the model in the process that runs it, or start processes with 'spawn'",
            )

    def _tell_others(self, block: StreamedBlock) -> None:
        """Other accelerators may have been waiting for their turn in the ring."""
        if self.ring is not None and block.device.is_accelerator:
            for device, lane in self.lanes.items():
                if device is not block.device and device.is_accelerator:
                    lane.read_ahead()

    def fetch(self, home: DiskHome | HostHome, name: str, device: torch.device) -> torch.Tensor:
        """Return a weight's numbers on a device, in memory of their own, for one use.

        Raises:
            StreamError: when it cannot be read.
        """
        with HeldSignals():
            return self._fetch(home, name, device)

    def _fetch(self, home: DiskHome | HostHome, name: str, device: torch.device) -> torch.Tensor:
        self._require_open()
        with torch.no_grad():
            self.counters.add(fetched=home.layout.weight(name).nbytes)
            return home.tensor(name, device)

    def fetch_direct(self, home: DiskHome | HostHome, name: str, device: torch.device) -> torch.Tensor:
        """Return a weight without a block of its own on a device, for one use.

        Kept there for the next ones as far as there is room.

        Raises:
            StreamError: when it cannot be read.
        """
        if self.direct is None:
            return self.fetch(home, name, device)
        return self.direct.get(name, device, lambda: self.fetch(home, name, device))

    def value(self, home: DiskHome | HostHome, name: str) -> torch.Tensor:
        """Return a weight's numbers on the CPU.

        As long as somebody holds them, the same tensor is given again, so ties stay ties.

        Raises:
            StreamError: when it cannot be read.
        """
        with HeldSignals():
            return self._value(home, name)

    def _value(self, home: DiskHome | HostHome, name: str) -> torch.Tensor:
        self._require_open()
        known = self._values.get(name)
        if known is None:
            known = self._values[name] = home.tensor(name)
        return known

    def read_ahead(self) -> None:
        """Start on the first blocks of a pass, where they are not under way since the last one."""
        with HeldSignals():
            self._read_ahead()

    def _read_ahead(self) -> None:
        self._require_own_process()
        self.counters.begin_pass()
        self._is_checked = False
        with self._lock:
            self._recover_if_broken()
            for lane in self.lanes.values():
                lane.read_ahead()

    def held_bytes(self) -> dict[Device, int]:
        """Return what is kept for streamed blocks on each device that executes them.

        But for the CPU's mapped pages and host slots.
        """
        found = {device: lane.nbytes for device, lane in self.lanes.items() if device.is_accelerator}
        for device, tensors in self.kept.items():
            found[device] = found.get(device, 0) + sum(tensor.nbytes for tensor in tensors.values())
        return found

    def cpu_bytes(self, *, mapped: bool) -> int:
        """Return what blocks on disk that the CPU executes take at a time.

        `mapped` pages, or else slots in host memory.
        """
        lanes = [lane for device, lane in self.lanes.items() if not device.is_accelerator]
        return sum(lane.nbytes for lane in lanes if lane.is_mapped is mapped)

    def trim(self) -> None:
        """Let go of memory that no block uses now."""
        with HeldSignals():
            self._trim()

    def _trim(self) -> None:
        self._require_own_process()
        if self.direct is not None:
            self.direct.clear()
        with self._lock:
            for lane in self.lanes.values():
                lane.trim()

    def close(self) -> None:
        """Stop the threads, close the files, free the slots."""
        if os.getpid() != self._process:
            return  # a fork: the threads are the parent's, and so is what they write to
        with self._lock:
            self._is_closed = True
            for lane in self.lanes.values():
                lane.close()
            if self.ring is not None:
                self.ring.close()
            self.lanes, self.ring = (
                {},
                None,
            )  # the engine may outlive its use: a finalizer of the model refers to it
            self.kept.clear()
            if self.direct is not None:
                self.direct.clear()
            self.readers.close()
