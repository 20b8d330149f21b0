"""Merged requests and slab layouts."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from devmap.runtime.storage.read_requests import FileRange, element_range, merge
from devmap.runtime.storage.weights import Weight, lay_out

_FILES = (Path("a"), Path("b"))


@st.composite
def _ranges(draw: st.DrawFn) -> list[FileRange]:
    found = []
    at = 0
    for path in _FILES:
        offset = 0
        for _ in range(draw(st.integers(0, 6))):
            offset += draw(st.integers(0, 30))
            nbytes = draw(st.integers(0, 50))
            found.append(FileRange(path, offset, nbytes, at))
            offset += nbytes
            at += nbytes
    return draw(st.permutations(found))


@given(_ranges(), st.integers(1, 64), st.integers(0, 16))
def test_every_byte_is_read_once_and_goes_to_its_place(
    ranges: list[FileRange], request_bytes: int, gap_bytes: int
) -> None:
    came_from: dict[int, tuple[Path, int]] = {}
    for request in merge(ranges, request_bytes=request_bytes, gap_bytes=gap_bytes):
        assert 0 < request.nbytes <= request_bytes
        assert request.nbytes == sum(nbytes for _, nbytes in request.parts)
        offset = request.offset
        for at, nbytes in request.parts:
            if at is None:
                assert nbytes <= gap_bytes
            else:
                for step in range(nbytes):
                    assert at + step not in came_from
                    came_from[at + step] = (request.path, offset + step)
            offset += nbytes
    assert came_from == {
        each.at + step: (each.path, each.offset + step) for each in ranges for step in range(each.nbytes)
    }


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3))
def test_a_box_is_one_run_exactly_when_its_elements_are_consecutive(dims: list[tuple[int, int, int]]) -> None:
    shape = tuple(size for size, _, _ in dims)
    box = tuple((min(a, b, size), min(max(a, b), size)) for size, a, b in dims)
    numbers = (
        torch.arange(math.prod(shape)).view(shape)[tuple(slice(*each) for each in box)].flatten().tolist()
    )
    found = element_range(shape, box)
    if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        assert found is None or found == (numbers[0], len(numbers))
    elif numbers:
        assert found is None


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), max_size=3),
            st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.int8]),
        ),
        max_size=8,
    )
)
def test_a_slab_is_exactly_as_big_as_its_weights_and_each_is_aligned(
    drawn: list[tuple[list[int], torch.dtype]],
) -> None:
    weights = [
        Weight(str(index), tuple(shape), dtype, "parameter") for index, (shape, dtype) in enumerate(drawn)
    ]
    layout = lay_out(weights)
    assert layout.nbytes == sum(weight.nbytes for weight in weights)
    end = 0
    for field in layout.fields:
        assert field.offset == end
        assert field.offset % field.weight.dtype.itemsize == 0
        assert field.weight.nbytes % 64 or field.offset % 64 == 0
        end += field.weight.nbytes
    slab = torch.zeros(layout.nbytes, dtype=torch.uint8)
    for name, view in layout.views(slab).items():
        view.fill_(int(name) + 1)
    assert all((view == int(name) + 1).all() for name, view in layout.views(slab).items())
