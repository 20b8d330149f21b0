from __future__ import annotations

from hypothesis import given

from devmap.inventory.atoms import atoms
from devmap.inventory.dtypes import storage_bytes
from devmap.inventory.model import Inventory, Tensor

from .trees import inventories


@given(inventories())
def test_every_tensor_is_in_exactly_one_atom_in_order(inventory: Inventory) -> None:
    names = [name for atom in atoms(inventory) for name in atom.tensors]
    assert sorted(names) == sorted(inventory.tensors)
    assert len(set(names)) == len(names)


@given(inventories())
def test_atoms_count_the_bytes_of_the_whole_model_a_tied_one_once(inventory: Inventory) -> None:
    assert sum(atom.nbytes for atom in atoms(inventory)) == inventory.nbytes
    assert (
        sum(atom.nbytes for atom in atoms(inventory, no_split_module_classes=["Block", "Linear"]))
        == inventory.nbytes
    )


@given(inventories())
def test_no_atom_is_inside_a_class_that_stays_whole(inventory: Inventory) -> None:
    for atom in atoms(inventory, no_split_module_classes=["Block"]):
        parts = atom.path.split(".")
        ancestors = ["", *(".".join(parts[:length]) for length in range(1, len(parts)))] if atom.path else []
        assert all(inventory.modules.get(path) != "Block" for path in ancestors)


def test_the_run_dtype_changes_parameters_and_leaves_buffers() -> None:
    tensors = {
        "weight": Tensor("weight", (3,), "float32"),
        "mask": Tensor("mask", (3,), "float32", "buffer"),
        "table": Tensor("table", (3,), "int8"),
    }
    (atom,) = atoms(Inventory({"": "M"}, tensors), dtype="bfloat16")
    assert atom.nbytes == storage_bytes((3,), "bfloat16") + 12 + 3
    assert not atom.is_tensor


def test_a_tensor_on_a_module_that_is_split_is_an_atom_of_its_own() -> None:
    inventory = Inventory(
        {"": "M", "a": "Linear"},
        {"scale": Tensor("scale", (2,), "int8"), "a.weight": Tensor("a.weight", (4,), "int8")},
        ties=(),
    )
    assert [(atom.path, atom.is_tensor, atom.nbytes) for atom in atoms(inventory)] == [
        ("scale", True, 2),
        ("a", False, 4),
    ]
