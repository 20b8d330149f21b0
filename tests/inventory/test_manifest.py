from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.errors import ManifestError
from devmap.inventory.fingerprint import fingerprint
from devmap.inventory.manifests.manifest import parse_manifest, read_manifest
from devmap.inventory.manifests.manifest_text import render_manifest
from devmap.inventory.model import Inventory, Tensor
from tests.effort import at_most

from .trees import inventories

if TYPE_CHECKING:
    from pathlib import Path


@given(inventories())
def test_a_manifest_gives_an_equal_inventory_back_in_the_same_order(inventory: Inventory) -> None:
    text = render_manifest(inventory)
    found = parse_manifest(text.encode(), "x")
    assert found == inventory
    assert list(found.modules) == list(inventory.modules)
    assert list(found.tensors) == list(inventory.tensors)
    assert fingerprint(found) == fingerprint(inventory)
    assert render_manifest(found) == text


def chain(length: int) -> Inventory:
    paths = [".".join(["child"] * depth) for depth in range(length + 1)]
    name = f"{paths[-1]}.weight"
    return Inventory(dict.fromkeys(paths, "Sequential"), {name: Tensor(name, (2, 2), "float32")})


def test_a_chain_of_400_modules_comes_back() -> None:
    inventory = chain(400)
    assert parse_manifest(render_manifest(inventory).encode(), "x") == inventory


def test_a_name_that_no_manifest_can_hold_is_refused_when_it_is_written() -> None:
    with pytest.raises(ManifestError, match=r"U\+0008"):
        render_manifest(Inventory({"": "M\x08"}, {}))


def test_what_is_alike_is_folded_and_what_is_not_stands_alone() -> None:
    shapes = {0: (1,), 1: (2,), 2: (2,), 3: (2,), 5: (2,)}
    modules = {"": "M", "h": "ModuleList", **{f"h.{number}": "B" for number in shapes}}
    tensors = {f"h.{number}.w": Tensor(f"h.{number}.w", shape, "int8") for number, shape in shapes.items()}
    text = render_manifest(Inventory(modules, tensors))
    assert [line.strip() for line in text.splitlines() if "h." in line or "h[" in line] == [
        "h.0: B", '"h[1-3]": B', "h.5: B", 'h.0.w: "int8[1]"', '"h[1-3].w": "int8[2]"', 'h.5.w: "int8[2]"',
    ]  # fmt: skip


def test_a_manifest_of_one_module_per_expert_stays_small() -> None:
    assert len(render_manifest(deepseek(61, 256))) < 20_000


def deepseek(layers: int, experts: int) -> Inventory:
    """The published shape of DeepSeek-V3's layers, with a module for each expert."""
    modules = {"": "DeepseekV3ForCausalLM", "model": "DeepseekV3Model", "model.layers": "ModuleList"}
    tensors: dict[str, Tensor] = {}

    def linear(path: str, shape: tuple[int, ...]) -> None:
        modules[path] = "Linear"
        tensors[f"{path}.weight"] = Tensor(f"{path}.weight", shape, "bfloat16")

    for number in range(layers):
        layer = f"model.layers.{number}"
        modules |= {layer: "DeepseekV3DecoderLayer", f"{layer}.self_attn": "DeepseekV3Attention"}
        for name in ("q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj", "o_proj"):
            linear(f"{layer}.self_attn.{name}", (1536, 7168))
        modules[f"{layer}.mlp"] = "DeepseekV3MoE"
        linear(f"{layer}.mlp.gate", (256, 7168))
        modules[f"{layer}.mlp.experts"] = "ModuleList"
        for expert in range(experts):
            modules[f"{layer}.mlp.experts.{expert}"] = "DeepseekV3MLP"
            for name in ("gate_proj", "up_proj", "down_proj"):
                linear(f"{layer}.mlp.experts.{expert}.{name}", (2048, 7168))
    return Inventory(modules, tensors, (), ("DeepseekV3DecoderLayer",))


HEAD = "version: 1\nmodules:\n  '': M\n  a: A\n  b: ModuleList\n  b[0-3]: B\n"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("version: 1\nmodules: {'': M}\nmoduls: {}\n", 3, "the key 'moduls' is not known"),
        ("version: 2\nmodules: {'': M}\n", 1, "expected 'version: 1', found '2'"),
        ("modules: {'': M}\n", 1, "expected 'version: 1', found null"),
        ("version: 1\n", 1, "expected a mapping of modules"),
        ("version: 1\nmodules: [a]\n", 2, "expected a mapping of modules"),
        ("version: 1\nmodules: {a: A}\n", 2, "expected the root module"),
        ("version: 1\nmodules: {'': [M]}\n", 2, "expected the name of a class"),
        (HEAD + "  c.d: D\n", 7, "'c.d' has no parent: expected 'c' above it"),
        (HEAD + "  b[4-2]: D\n", 7, "runs backwards"),
        (HEAD + "  b[0-9]x: D\n", 7, "expected a range such as"),
        (HEAD + "  b[0-]: D\n", 7, "expected a range such as"),
        (HEAD + "  b..c: D\n", 7, "'b..c' has no parent"),
        (HEAD + "  b.: D\n", 7, "is not a valid path"),
        (HEAD + "  b[2-5]: D\n", 7, "names a child that another entry names too"),
        (HEAD + "  b.3: D\n", 7, "names a child that another entry names too"),
        (HEAD + "  b[4-99999999]: D\n", 7, "5,000,000 are allowed"),
        (HEAD + "  b[4-9999999999]: D\n", 7, "below 1,000,000,000"),
        (HEAD + "tensors:\n  a.w: float32\n", 8, "expected a dtype and a shape"),
        (HEAD + "tensors:\n  a.w: float32[1, x]\n", 8, "expected a dtype and a shape"),
        (HEAD + "tensors:\n  a.w: float32[1,, 2]\n", 8, "expected a shape of whole numbers"),
        (HEAD + "tensors:\n  a.w: float32[99999999999999999999]\n", 8, "expected a shape of whole numbers"),
        (HEAD + "tensors:\n  a.w: float33[1]\n", 8, "'float33' is not a torch dtype"),
        (HEAD + "tensors:\n  a.w: float32[1] buffered\n", 8, "expected a dtype and a shape"),
        (HEAD + "tensors:\n  a.w: 7\n", 8, "expected a dtype and a shape"),
        (HEAD + "tensors:\n  c.w: int8[1]\n", 8, "'c.w' has no module"),
        (HEAD + "tensors:\n  b[0-3]: int8[1]\n", 8, "ends in a range"),
        (HEAD + "tensors:\n  a: int8[1]\n", 8, "names a child that another entry names too"),
        (HEAD + "tensors:\n  a.w: int8[1]\nties: [[a.w, a.v]]\n", 9, "'a.v' is no tensor of this model"),
        (HEAD + "tensors:\n  a.w: int8[1]\nties: [[a.w, a.w]]\n", 9, "tied twice"),
        (HEAD + "tensors:\n  a.w: int8[1]\nties: [[a.w]]\n", 9, "two names or more"),
        (
            HEAD + "tensors:\n  a.w: int8[1]\n  w: int8[2]\nties:\n  - [a.w, w]\n",
            11,
            "one shape and one dtype",
        ),
        (HEAD + "ties: a\n", 7, "expected a list of lists"),
        (HEAD + "ties: [a]\n", 7, "expected a list of names"),
        (HEAD + "no_split_module_classes: B\n", 7, "expected a list of names"),
        (HEAD + "architecture: 3\n", 7, "expected a mapping of architecture"),
        (HEAD + "architecture: {a: {b: 1}}\n", 7, "expected a figure"),
        (HEAD + "architecture: {a: [1.5]}\n", 7, "expected a list of whole numbers"),
        ("version: 1\nmodules: {'': M}\nmodules: {'': M}\n", 3, "modules"),
        ("version: 1\n\tmodules: {}\n", 2, "tab"),
        ("", 1, "empty"),
    ],
)
def test_a_wrong_manifest_says_file_and_line(text: str, line: int, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text.encode(), "x.manifest.yaml")
    found = [problem.message for problem in caught.value.problems]
    assert any(message.startswith(f"x.manifest.yaml:{line}:") and expected in message for message in found), (
        found
    )


def test_all_faults_are_in_one_error() -> None:
    text = HEAD + "  c.d: D\n  b.2: B\ntensors:\n  a.w: float33[1]\n  q.w: int8[1]\nodd: 1\n"
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text.encode(), "x")
    assert len(caught.value.problems) == 5


def test_an_absent_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read") as caught:
        read_manifest(tmp_path / "absent.yaml")
    assert "devmap inspect" in caught.value.help


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodules:\n  '': M\n"
        + "".join(f"  m{number}: ModuleList\n  m{number}[0-999999]: B\n" for number in range(200)),
        "version: 1\nmodules:\n  '': M\n  a: B\n"
        + "".join(f"  {'a' + '[0-99]' + '.a[0-99]' * depth}: B\n" for depth in range(8)),
        "version: 1\nmodules:\n  '': M\n"
        + "".join(f"  '[{number}-{number + 5}]': B\n" for number in range(20_000)),
        "version: 1\nmodules: " + "[" * 100_000,
        "x: &a [1, 2, 3]\n"
        + "".join(f"y{number}: &b{number} [*a, *a, *a]\n" for number in range(100))
        + "version: 1\n",
        "version: 1\nmodules: {'': M}\ntensors:\n"
        + "".join(f"  w{number}: zzz[1]\n" for number in range(20_000)),
    ],
)
def test_a_hostile_manifest_is_refused_in_bounded_time_and_memory(text: str) -> None:
    tracemalloc.start()
    with at_most(million_steps=600), pytest.raises(ManifestError):  # tracing takes most of it
        parse_manifest(text.encode(), "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 << 20


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_gives_an_inventory_or_a_manifest_error(text: str) -> None:
    found: Inventory | ManifestError
    try:
        found = parse_manifest(f"version: 1\nmodules:\n  '': M\n  {text}\n".encode(), "x")
    except ManifestError as error:
        found = error
    assert isinstance(found, Inventory) or found.problems
