"""Transformers' weight conversions done on assembled tensors: what each operation makes of which part.

See `transformers.core_model_loading`, 5.x; the operations' names and options are its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devmap.inventory.conversions.assembly import (
    AssemblyError,
    concatenate,
    flatten,
    reorder,
    split,
    stack,
    transpose,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.inventory.conversions.assembly import Assembled

__all__ = ["Operation", "Setting", "run_operations"]

Operation = tuple[str, tuple[Any, ...]]
"""An operation's name and its options: `("Concatenate", (1,))`."""

_Values = dict[str, list["Assembled"]]
"""The tensors of each source pattern, or of each target's name once an operation has told them apart."""


@dataclass(frozen=True)
class Setting:
    """What an operation may ask of the model."""

    shape_of: Callable[[str], tuple[int, ...] | None]
    """The shape of the model's tensor of a name, where it is known."""
    figures: Mapping[str, object]
    """The config."""


def run_operations(
    operations: Sequence[Operation], values: _Values, names: Sequence[str], setting: Setting
) -> dict[str, Assembled]:
    """Do all operations in turn; `names` are those of the model's tensors that come out.

    Raises:
        AssemblyError: when the shapes do not fit together, or an operation is not known.
    """
    names = list(names)
    for operation, options in operations:
        function = _OPERATIONS.get(operation)
        if function is None:
            raise AssemblyError(f"the operation {operation} is not known")
        values, names = function(values, names, options, setting)
    made = [tensor for tensors in values.values() for tensor in tensors]
    if len(made) != len(names):
        raise AssemblyError(f"{len(made)} tensors came out where {len(names)} were expected")
    return dict(zip(names, made, strict=True))


_Result = tuple[_Values, list[str]]


def _dim(options: tuple[Any, ...], place: int = 0) -> int:
    return int(options[place]) if len(options) > place else 0


def _option(options: tuple[Any, ...], place: int) -> Any:
    return options[place] if len(options) > place else None


def _only(values: _Values) -> Assembled:
    tensors = [tensor for each in values.values() for tensor in each]
    if len(tensors) != 1:
        raise AssemblyError(f"{len(tensors)} tensors were found where one was expected")
    return tensors[0]


def _merge(values: _Values, names: list[str], options: tuple[Any, ...], _: Setting) -> _Result:
    return {key: [stack(tensors, _dim(options))] for key, tensors in values.items()}, names


def _concatenate(values: _Values, names: list[str], options: tuple[Any, ...], _: Setting) -> _Result:
    tensors = [tensor for each in values.values() for tensor in each]
    return {names[0]: [concatenate(tensors, _dim(options))]}, names


def _chunk(values: _Values, names: list[str], options: tuple[Any, ...], setting: Setting) -> _Result:
    tensor, attribute = _only(values), _option(options, 1)
    if attribute is not None:
        shards = _figure(setting.figures, str(attribute))
        names = [names[0].replace("*", str(number)) for number in range(shards)]
    sizes = _chunk_sizes(tensor.shape, _dim(options), len(names))
    return {
        name: [part] for name, part in zip(names, split(tensor, sizes, _dim(options)), strict=True)
    }, names


def _chunk_sizes(shape: tuple[int, ...], dim: int, count: int) -> list[int]:
    """Return the sizes of the chunks that `torch.chunk` makes."""
    if dim >= len(shape):
        raise AssemblyError(f"a tensor of the shape {shape} has no dimension {dim}")
    size = -(-shape[dim] // count)
    return [max(0, min(size, shape[dim] - size * number)) for number in range(count)]


def _split(values: _Values, names: list[str], options: tuple[Any, ...], setting: Setting) -> _Result:
    tensor, dim = _only(values), _dim(options)
    shapes = [setting.shape_of(name) for name in names]
    sizes = [shape[dim] if shape and dim < len(shape) else -1 for shape in shapes]
    if -1 in sizes:
        raise AssemblyError(f"the sizes of {', '.join(names)} are not known")
    return {name: [part] for name, part in zip(names, split(tensor, sizes, dim), strict=True)}, names


def _split_list(values: _Values, names: list[str], options: tuple[Any, ...], _: Setting) -> _Result:
    tensor, dim = _only(values), _dim(options)
    parts = [flatten(part, dim) for part in split(tensor, [1] * tensor.shape[dim], dim)]
    names = [names[0].replace("*", str(number)) for number in range(len(parts))]
    return {name: [part] for name, part in zip(names, parts, strict=True)}, names


def _transpose(values: _Values, names: list[str], options: tuple[Any, ...], setting: Setting) -> _Result:
    first, second = _dim(options), int(options[1]) if len(options) > 1 else 1
    tensor = _only(values)
    (key,) = values
    if _option(options, 2) and _is_right(tensor.shape, names[0], setting):
        return values, names
    return {key: [transpose(tensor, first, second)]}, names


def _is_right(shape: tuple[int, ...], name: str, setting: Setting) -> bool:
    """Return whether stored experts already stand as the model has them.

    Where no model is at hand the hidden size says: the second of a down projection's sizes, the last of
    others.
    """
    expected = setting.shape_of(name)
    if expected is not None:
        return shape == expected
    hidden = _figure(setting.figures, "hidden_size")
    return shape[1 if "down_proj" in name else -1] == hidden


def _figure(figures: Mapping[str, object], key: str) -> int:
    """Return a figure of the config, or of its text part."""
    text = figures.get("text_config")
    for each in (text if isinstance(text, dict) else {}, figures):
        value = each.get(key)
        if isinstance(value, int):
            return value
    raise AssemblyError(f"config.json has no '{key}'")


def _interleave(values: _Values, names: list[str], options: tuple[Any, ...], _: Setting) -> _Result:
    tensor, dim = _only(values), _dim(options)
    size = tensor.shape[dim]
    half = size // 2
    pairs = [place for pair in range(half) for place in (pair, half + pair)]
    order = pairs if _option(options, 1) else [*range(0, size, 2), *range(1, size, 2)]
    (key,) = values
    return {key: [reorder(tensor, order, dim)]}, names


def _permute_for_rope(
    values: _Values, names: list[str], options: tuple[Any, ...], setting: Setting
) -> _Result:
    part, layers, inverse = _option(options, 0), _option(options, 1), bool(_option(options, 2))
    own = setting.figures.get(str(part)) if part else None
    figures = own if isinstance(own, dict) else setting.figures
    heads = figures.get("num_attention_heads")
    found: _Values = {}
    for key, tensors in values.items():
        if layers is not None and not any(name in key for name in layers):
            found[key] = tensors
            continue
        if len(tensors) != 1:
            raise AssemblyError(f"{len(tensors)} tensors were found where one was expected")
        size = tensors[0].shape[0]
        count = heads if isinstance(heads, int) else 1
        half = size // count // 2
        rows, columns = (2, half) if inverse else (half, 2)
        order = [
            head * rows * columns + row * columns + column
            for head in range(count)
            for column in range(columns)
            for row in range(rows)
        ]
        found[key] = [reorder(tensors[0], order, 0)]
    return found, names


def _fuse_text_and_vision(values: _Values, names: list[str], options: tuple[Any, ...], _: Setting) -> _Result:
    """Return the first half of each list of experts is the text's, the second the vision's."""
    stack_dim, concat_dim = _dim(options), _dim(options, 1)
    made: dict[str, list[Assembled]] = {name: [] for name in names}
    for tensors in values.values():
        size = -(-len(tensors) // len(names))
        for number, name in enumerate(names):
            made[name].append(stack(tensors[number * size : (number + 1) * size], stack_dim))
    return {name: [concatenate(tensors, concat_dim)] for name, tensors in made.items()}, names


_OPERATIONS: dict[str, Callable[[_Values, list[str], tuple[Any, ...], Setting], _Result]] = {
    "Chunk": _chunk,
    "Concatenate": _concatenate,
    "ErnieFuseAndSplitTextVisionExperts": _fuse_text_and_vision,
    "Interleave": _interleave,
    "MergeModulelist": _merge,
    "PermuteForRope": _permute_for_rope,
    "Split": _split,
    "SplitModulelist": _split_list,
    "Transpose": _transpose,
}
