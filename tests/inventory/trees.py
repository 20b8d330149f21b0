"""Random models for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from devmap.inventory.model import Architecture, Inventory, Tensor, TensorKind
from devmap.inventory.tree import with_ancestors

NAMES = st.sampled_from(
    [
        "a",
        "ab",
        "layers",
        "0",
        "1",
        "2",
        "3",
        "5",
        "10",
        "00",
        "w",
        "null",
        "true",
        "é",
        "x[0-3]",
        "[1]",
        "b\\c",
        "-",
        "1e3",
        "k v",
        "#",
        "~",
    ]
)
CLASSES = st.sampled_from(["Linear", "Block", "", "null", "ModuleList", "Ünit", "A: B"])
KINDS: list[tuple[TensorKind, bool]] = [("parameter", True), ("buffer", True), ("buffer", False)]
LEAVES = st.tuples(
    st.sampled_from(["weight", "bias", "0", "1", "scale[0-1]"]),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    st.sampled_from(["float32", "bfloat16", "int8"]),
    st.sampled_from(KINDS),
)


FIGURES = st.dictionaries(
    st.sampled_from(["a", "b", "true"]),
    st.one_of(
        st.integers(),
        st.booleans(),
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=5),
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.one_of(st.integers(), st.sampled_from(["a", "null", "1"])), max_size=3),
    ),
    max_size=3,
)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Module trees with ties, buffers, gaps in numbers, names that begin others, and repeated subtrees."""
    modules: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}

    def grow(path: str, depth: int) -> None:
        modules[path] = draw(CLASSES)
        prefix = f"{path}." if path else ""
        leaves = draw(st.lists(LEAVES, max_size=2, unique_by=lambda leaf: leaf[0]))
        tensors.update(
            {prefix + name: Tensor(prefix + name, shape, dtype, *kind) for name, shape, dtype, kind in leaves}
        )
        if depth == 0:
            return
        for name in draw(st.lists(NAMES, max_size=4, unique=True)):
            if prefix + name not in tensors:
                grow(prefix + name, depth - 1)
        if draw(st.booleans()):
            first, count = draw(st.integers(0, 12)), draw(st.integers(1, 12))
            modules[f"{prefix}many"] = "ModuleList"
            grow(f"{prefix}many.{first}", min(depth - 1, 1))
            _repeat(modules, tensors, f"{prefix}many", range(first, first + count))

    grow("", 3)
    groups: dict[tuple[object, ...], list[str]] = {}
    for tensor in tensors.values():
        groups.setdefault((tensor.shape, tensor.dtype, tensor.kind), []).append(tensor.name)
    ties = tuple(tuple(names[:3]) for names in groups.values() if len(names) > 1 and draw(st.booleans()))
    architecture = Architecture("llama", "Some: Class", draw(FIGURES)) if draw(st.booleans()) else None
    whole = tuple(sorted(set(draw(st.lists(CLASSES, max_size=2)))))
    return Inventory(with_ancestors(modules, tensors), tensors, ties, whole, architecture)


def _repeat(modules: dict[str, str], tensors: dict[str, Tensor], path: str, numbers: range) -> None:
    """Copies of the first numbered child under the other numbers."""
    root = f"{path}.{numbers[0]}"
    below = [(key, value) for key, value in modules.items() if key == root or key.startswith(f"{root}.")]
    inside = [tensor for tensor in tensors.values() if tensor.name.startswith(f"{root}.")]
    for number in numbers[1:]:
        modules.update({f"{path}.{number}{key[len(root) :]}": value for key, value in below})
        copies = [tensor._replace(name=f"{path}.{number}{tensor.name[len(root) :]}") for tensor in inside]
        tensors.update({tensor.name: tensor for tensor in copies})
