"""Small models and configs for the planner's tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from devmap.config.model.placement_config import PlacementConfig
from devmap.inventory.model import Architecture, Inventory, Tensor, TensorKind

__all__ = ["LLAMA", "chain", "config", "decoder", "inventories", "memories", "rows", "tight_memories"]


def config(**keys: Any) -> PlacementConfig:
    return PlacementConfig.model_validate({"version": 1, "model": {}, **keys})


def chain(*sizes: int, ties: tuple[tuple[str, ...], ...] = (), whole: tuple[str, ...] = ()) -> Inventory:
    """Leaf modules `m0`, `m1`, ... of so many bytes each."""
    modules = {"": "Model", **{f"m{at}": "Leaf" for at in range(len(sizes))}}
    tensors = {f"m{at}.weight": Tensor(f"m{at}.weight", (size,), "uint8") for at, size in enumerate(sizes)}
    return Inventory(modules, tensors, ties, whole)


LLAMA = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 32,
}


def decoder(layers: int = 4, *, model_type: str = "llama", **figures: Any) -> Inventory:
    """A decoder of whole blocks with an attention and an mlp, untied head."""
    modules = {
        "": "TestForCausalLM",
        "model": "TestModel",
        "model.embed": "Embedding",
        "model.layers": "ModuleList",
    }
    tensors = {"model.embed.weight": Tensor("model.embed.weight", (32, 8), "bfloat16")}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        modules.update({block: "Block", f"{block}.self_attn": "Attention", f"{block}.mlp": "Mlp"})
        for name, shape in ((f"{block}.self_attn.weight", (8, 8)), (f"{block}.mlp.weight", (16, 8))):
            tensors[name] = Tensor(name, shape, "bfloat16")
    modules["lm_head"] = "Linear"
    tensors["lm_head.weight"] = Tensor("lm_head.weight", (32, 8), "bfloat16")
    architecture = Architecture(
        model_type, "TestForCausalLM", {**LLAMA, "num_hidden_layers": layers, **figures}
    )
    return Inventory(modules, tensors, (), ("Block",), architecture)


KINDS: tuple[TensorKind, ...] = ("parameter", "parameter", "buffer")


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Random module trees: direct tensors on split modules, buffers, empty tensors, ties across the tree.

    Whole classes.
    """
    modules: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    kinds = st.sampled_from(["Block", "Leaf", "Other"])

    def grow(path: str, depth: int) -> bool:
        modules[path] = draw(kinds) if path else "Model"
        held = False
        for number in range(draw(st.integers(0 if depth < 2 else 1, 2))):
            name = f"{path}.t{number}".lstrip(".")
            kind = draw(st.sampled_from(KINDS))
            tensors[name] = Tensor(
                name,
                (draw(st.integers(0, 9)),),
                draw(st.sampled_from(["uint8", "bfloat16", "float32"])),
                kind,
            )
            held = True
        for number in range(draw(st.integers(0, 3)) if depth < 2 else 0):
            held = grow(f"{path}.{number}".lstrip("."), depth + 1) or held
        if not held:
            del modules[path]
        return held

    if not grow("", 0):
        modules[""] = "Model"
        tensors["t0"] = Tensor("t0", (3,), "uint8")
    order = _ordered(modules, tensors)
    parameters = [name for name in order if tensors[name].kind == "parameter"]
    ties: list[tuple[str, ...]] = []
    for _ in range(draw(st.integers(0, 2)) if len(parameters) > 3 else 0):
        pair = draw(st.lists(st.sampled_from(parameters), min_size=2, max_size=3, unique=True))
        if not any(name in group for group in ties for name in pair):
            group = tuple(name for name in order if name in pair)
            for name in group[1:]:
                tensors[name] = Tensor(name, tensors[group[0]].shape, tensors[group[0]].dtype)
            ties.append(group)
    ties.sort(key=lambda group: order.index(group[0]))
    whole = draw(st.sampled_from([(), ("Block",), ("Block", "Absent")]))
    return Inventory(modules, {name: tensors[name] for name in order}, tuple(ties), whole)


def _ordered(modules: dict[str, str], tensors: dict[str, Tensor]) -> list[str]:
    place = {path: at for at, path in enumerate(modules)}
    return sorted(tensors, key=lambda name: (place[tensors[name].module], tensors[name].kind == "buffer"))


@st.composite
def memories(draw: st.DrawFn, total: int) -> dict[Any, int]:
    """Budgets around the model's size: zero ones, gaps in ids, with and without cpu and disk."""
    size = st.one_of(st.just(0), st.integers(0, max(total, 1)), st.just(total))
    found: dict[Any, int] = {
        key: draw(size) for key in draw(st.lists(st.integers(0, 7), max_size=3, unique=True))
    }
    if draw(st.booleans()):
        found["cpu"] = draw(size)
    if draw(st.booleans()) or not found:
        found["disk"] = draw(st.one_of(size, st.just(10 * total + 100)))
    return found


@st.composite
def rows(draw: st.DrawFn) -> Inventory:
    """Many small leaves in a row, as layers are; sometimes the first tied to the last."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=6, max_size=14))
    if draw(st.booleans()):
        sizes[-1] = sizes[0]
        return chain(*sizes, ties=(("m0.weight", f"m{len(sizes) - 1}.weight"),))
    return chain(*sizes)


@st.composite
def tight_memories(draw: st.DrawFn, total: int) -> dict[Any, int]:
    """Budgets under which most models have a plan that streams.

    One to three accelerators that hold less than all, and tiers below them that hold the rest.
    """
    share = st.integers(total // 4, max(1, total // 2))
    ids = draw(st.sampled_from([(0,), (0, 1), (1, 3), (0, 1, 2)]))
    found: dict[Any, int] = {key: draw(share) for key in ids}
    found["cpu"] = draw(st.sampled_from([total, 2 * total, total // 2]))
    if draw(st.booleans()):
        found["disk"] = 10 * total + 100
    return found
