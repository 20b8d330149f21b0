"""Virtual time: work runs when it is needed, and takes the time that a perfect machine would."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.devices.virtual_clock import VirtualClock


def test_queued_work_runs_only_when_a_mark_behind_it_is_waited_for() -> None:
    clock = VirtualClock()
    copies, compute = clock.stream("copies"), clock.stream("compute")
    done: list[str] = []
    copies.enqueue(lambda: done.append("first"), seconds=2)
    mark = copies.mark()
    copies.enqueue(lambda: done.append("second"), seconds=2)
    assert done == []
    compute.wait_now(mark)
    assert done == ["first"]
    assert (compute.ready_seconds, clock.host_seconds, copies.outstanding) == (2, 0, 1)


def test_a_mark_before_anything_is_reached_at_once() -> None:
    clock = VirtualClock()
    copies = clock.stream("copies")
    copies.reach(copies.mark())
    assert clock.now_seconds == 0


def test_work_waits_for_marks_of_streams_that_have_not_run() -> None:
    clock = VirtualClock()
    disk, copies, compute = (clock.stream(name) for name in ("disk", "copies", "compute"))
    order: list[str] = []
    disk.enqueue(lambda: order.append("read"), seconds=5)
    copies.wait(disk.mark())
    copies.enqueue(lambda: order.append("copy"), seconds=1)
    compute.wait_now(copies.mark())
    compute.run(lambda: order.append("compute"), seconds=3)
    assert order == ["read", "copy", "compute"]
    assert compute.ready_seconds == 9


def test_synchronize_moves_the_host_and_later_work_starts_after_it() -> None:
    clock = VirtualClock()
    first, second = clock.stream("first"), clock.stream("second")
    first.enqueue(None, seconds=4)
    first.synchronize()
    second.run(seconds=1)
    assert (clock.host_seconds, second.ready_seconds, second.busy_seconds) == (4, 5, 1)


def test_synchronizing_the_clock_runs_every_stream() -> None:
    clock = VirtualClock()
    streams = [clock.stream(str(index)) for index in range(3)]
    for index, stream in enumerate(streams):
        stream.enqueue(None, seconds=index)
    clock.synchronize()
    assert [stream.outstanding for stream in streams] == [0, 0, 0]
    assert clock.host_seconds == clock.now_seconds == 2


def test_two_slots_with_waits_both_ways_reach_the_bound() -> None:
    """Eight equal blocks, copies twice as slow as compute.

    The pass takes the copies' time plus the last block's compute.
    """
    clock = VirtualClock()
    copies, compute = clock.stream("copies"), clock.stream("compute")
    freed = [compute.mark(), compute.mark()]
    for block in range(8):
        slot = block % 2
        copies.wait(freed[slot])
        copies.enqueue(None, seconds=2)
        compute.wait_now(copies.mark())
        compute.run(seconds=1)
        freed[slot] = compute.mark()
    assert copies.busy_seconds == 16
    assert compute.ready_seconds == 17


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.none() | st.integers(0, 2)), max_size=30))
def test_any_schedule_is_in_order_and_never_beats_its_bound(steps: list[tuple[int, int, int | None]]) -> None:
    clock = VirtualClock()
    streams = [clock.stream(str(index)) for index in range(3)]
    ran: list[tuple[int, int]] = []
    for number, (index, seconds, other) in enumerate(steps):
        if other is not None:
            streams[index].wait(streams[other].mark())
        streams[index].enqueue(partial(ran.append, (index, number)), seconds=seconds)
    clock.synchronize()
    assert sorted(number for _, number in ran) == list(range(len(steps)))
    for index in range(3):
        numbers = [number for ran_on, number in ran if ran_on == index]
        assert numbers == sorted(numbers)
    assert clock.now_seconds >= max(stream.busy_seconds for stream in streams)
    assert clock.now_seconds <= sum(stream.busy_seconds for stream in streams)
