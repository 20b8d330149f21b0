from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from devmap.inventory.conversions.assembly import (
    Assembled,
    AssemblyError,
    concatenate,
    pieces_of,
    split,
    stack,
    stored,
    transpose,
)
from devmap.inventory.conversions.conversion import ConversionRules, NameConversion, convert
from devmap.inventory.stored.header import StoredTensor


def held(name: str, *shape: int) -> StoredTensor:
    return StoredTensor(name, shape, "int64", Path("x"), 0, 8)


def numbers(tensor: Assembled, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """The assembled tensor in numbers, from its pieces."""
    result = torch.full(tensor.shape, -1)
    for piece in pieces_of(tensor):
        part = values[piece.stored]
        if piece.take is not None:
            part = part[tuple(slice(*edge) for edge in piece.take)]
        if piece.permute is not None:
            part = part.permute(piece.permute)
        box = (
            tuple(slice(*edge) for edge in piece.put)
            if piece.put is not None
            else tuple(slice(None) for _ in tensor.shape)
        )
        result[box] = part.reshape(result[box].shape)
    return result


@given(st.data())
def test_any_chain_of_operations_on_shapes_does_what_it_does_on_numbers(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    count = data.draw(st.integers(1, 3))
    values = {
        str(number): torch.arange(torch.Size(shape).numel()).reshape(shape) + 1000 * number
        for number in range(count)
    }
    symbolic = [stored(held(name, *shape)) for name in values]
    real = list(values.values())
    for _ in range(data.draw(st.integers(1, 4))):
        rank = real[0].dim()
        match data.draw(st.sampled_from(["stack", "concatenate", "split", "transpose"])):
            case "stack":
                dim = data.draw(st.integers(0, rank))
                symbolic, real = [stack(symbolic, dim)], [torch.stack(real, dim)]
            case "concatenate":
                dim = data.draw(st.integers(0, rank - 1))
                symbolic, real = [concatenate(symbolic, dim)], [torch.cat(real, dim)]
            case "split":
                dim = data.draw(st.integers(0, rank - 1))
                first = data.draw(st.integers(0, real[0].shape[dim]))
                sizes = [first, real[0].shape[dim] - first]
                place = data.draw(st.integers(0, 1))
                symbolic = [split(tensor, sizes, dim)[place] for tensor in symbolic]
                real = [torch.split(tensor, sizes, dim)[place] for tensor in real]
            case "transpose":
                one, other = data.draw(st.integers(0, rank - 1)), data.draw(st.integers(0, rank - 1))
                symbolic = [transpose(tensor, one, other) for tensor in symbolic]
                real = [tensor.transpose(one, other) for tensor in real]
    for tensor, expected in zip(symbolic, real, strict=True):
        assert tensor.shape == tuple(expected.shape)
        assert torch.equal(numbers(tensor, values), expected)


def test_a_stored_tensor_as_it_is_is_one_whole_piece() -> None:
    (piece,) = pieces_of(stored(held("a", 2, 3)))
    assert piece.is_whole


def test_shapes_that_do_not_fit_are_refused() -> None:
    two, three = stored(held("a", 2)), stored(held("b", 3))
    with pytest.raises(AssemblyError):
        stack([two, three], 0)
    with pytest.raises(AssemblyError):
        concatenate([two, stored(held("c", 2, 2))], 0)
    with pytest.raises(AssemblyError):
        split(two, [1, 2], 0)
    with pytest.raises(AssemblyError):
        transpose(two, 0, 1)


FUSED = NameConversion(
    ("attn.qkv.weight",), ("attn.q.weight", "attn.k.weight", "attn.v.weight"), (("Chunk", (0,)),)
)


def test_a_fused_tensor_is_cut_into_the_models() -> None:
    names = {f"h.0.attn.{letter}.weight" for letter in "qkv"}
    found = convert(
        {"h.0.attn.qkv.weight": held("h.0.attn.qkv.weight", 6, 2)},
        ConversionRules((FUSED,)),
        knows=names.__contains__,
    )
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == dict.fromkeys(names, (2, 2))
    (piece,) = pieces_of(found.tensors["h.0.attn.k.weight"])
    assert piece.take == ((2, 4), (0, 2))


def test_experts_are_gathered_in_the_order_of_their_numbers() -> None:
    rule = NameConversion(
        ("experts.*.w1.weight", "experts.*.w3.weight"),
        ("experts.fused",),
        (("MergeModulelist", (0,)), ("Concatenate", (1,))),
    )
    tensors = {
        f"experts.{number}.w{part}.weight": held(f"experts.{number}.w{part}.weight", 2, 3)
        for number in range(12)
        for part in (1, 3)
    }
    found = convert(tensors, ConversionRules((rule,)), knows={"experts.fused"}.__contains__)
    fused = found.tensors["experts.fused"]
    assert fused.shape == (12, 4, 3)
    assert [piece.stored for piece in pieces_of(fused)][:3] == [
        "experts.0.w1.weight",
        "experts.1.w1.weight",
        "experts.2.w1.weight",
    ]
    tenth = next(piece for piece in pieces_of(fused) if piece.stored == "experts.10.w3.weight")
    assert tenth.put == ((10, 11), (2, 4), (0, 3))


def test_experts_that_do_not_fit_together_are_unmapped_and_noted() -> None:
    rule = NameConversion(("experts.*.w1.weight",), ("experts.fused",), (("MergeModulelist", (0,)),))
    tensors = {
        "experts.0.w1.weight": held("experts.0.w1.weight", 2, 3),
        "experts.1.w1.weight": held("experts.1.w1.weight", 2, 4),
    }
    found = convert(tensors, ConversionRules((rule,)), knows={"experts.fused"}.__contains__)
    assert found.unmapped == list(tensors)
    assert "cannot be put together" in found.notes[0]


def test_names_that_the_model_computes_or_does_not_want_are_ignored() -> None:
    rules = ConversionRules(ignored=(r"attn\.bias",))
    found = convert(
        {name: held(name, 1) for name in ("h.attn.bias", "position_ids", "odd")},
        rules,
        knows=lambda _: False,
        is_computed="position_ids".__eq__,
    )
    assert found.ignored == ["h.attn.bias", "position_ids"]
    assert found.unmapped == ["odd"]


def test_a_scoped_rule_applies_below_its_submodel_alone() -> None:
    rule = NameConversion(("^old",), ("new",), scope="tower")
    assert rule.apply("tower.old.w", "model") == ("tower.new.w", 0)
    assert rule.apply("model.tower.old.w", "model") == ("model.tower.new.w", 0)
    assert rule.apply("old.w", "model") == ("old.w", None)


def test_a_group_of_the_source_is_kept_and_words_end_where_they_end() -> None:
    assert NameConversion((r"(\d+)\.x",), (r"layers.\1.y",)).apply("3.x", "") == ("layers.3.y", 0)
    assert NameConversion(("weight",), ("kernel",)).apply("a.weight_scale", "") == ("a.weight_scale", None)
