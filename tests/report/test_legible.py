"""Names that a stranger chose: no report prints what a terminal, a log or a page would obey."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.inventory.model import Inventory, Tensor
from devmap.report.legible import legible
from tests.cli.test_commands import devmap_command
from tests.planning.planning_models import chain

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "a\n::error::pwned\x1b[31m\u202e\u2028b"
CONFIG = f"x\n::warning::{EVIL[:3]}.devmap.yaml"


@pytest.fixture
def evil_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, a config and its lock whose names hold all that a terminal or a log obeys."""
    names = [f"{EVIL}{number}.weight" for number in range(4)] + [f"{EVIL}0.bias"]
    header = {
        name: {"dtype": "F32", "shape": [1000], "data_offsets": [4000 * at, 4000 * (at + 1)]}
        for at, name in enumerate(names)
    }
    head = json.dumps(header).encode()
    body = bytes(4000 * len(names))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [EVIL], "model_type": EVIL}))
    text = "version: 1\nmodel: {checkpoint: .}\nmax_memory: {0: 9KB, 1: 20KB, cpu: 1MB}\n"
    (tmp_path / CONFIG).write_text(text, encoding="utf-8")
    (tmp_path / "y.devmap.yaml").write_text(text.replace("9KB", "19KB"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["validate", CONFIG],
        ["inspect", "."],
        ["inspect", ".", "--depth", "9"],
        ["plan", CONFIG],
        ["plan", CONFIG, "--format", "markdown"],
        ["plan", CONFIG, "--html", "-"],
        ["plan", CONFIG, "--why", EVIL + "0"],
        ["plan", CONFIG, "--why", EVIL],
        ["diff", CONFIG, "y.devmap.yaml"],
        ["diff", CONFIG, "y.devmap.yaml", "--format", "markdown"],
        ["diff", CONFIG, "y.devmap.yaml", "--html", "-"],
        ["resolve", CONFIG],
        ["resolve", CONFIG, "--lock"],
        ["simulate", CONFIG],
        ["run", CONFIG],
        ["init", "."],
    ],
    ids=lambda command: " ".join(command[::2][:2]).encode("unicode_escape").decode()[:40],
)
@pytest.mark.usefixtures("evil_folder")
def test_no_command_prints_a_character_that_is_obeyed(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = devmap_command(*command)
    printed = outcome.stdout + outcome.stderr + "".join(capsys.readouterr())
    assert outcome.status in {0, 1, 2}
    assert "bug in devmap" not in printed
    assert printed
    # Pages keep figures beside their units by blanks that do not break.
    assert {letter for letter in printed if not letter.isprintable()} <= {"\n", "\xa0"}
    assert not [line for line in printed.splitlines() if line.lstrip().startswith("::")]


@given(st.text(), st.text())
def test_a_model_with_any_names_becomes_one_without_what_is_not_printable(name: str, class_name: str) -> None:
    model = Inventory(
        {"": class_name, "m": class_name},
        {f"m.{name}": Tensor(f"m.{name}", (1,), "uint8")},
        (),
        (class_name,),
    )
    shown = legible(model)
    for text in (*shown.modules.values(), *shown.tensors, *shown.no_split_module_classes):
        assert text.isprintable()
    assert [tensor.name for tensor in shown.tensors.values()] == list(shown.tensors)


def test_what_is_plain_is_not_copied() -> None:
    model = chain(1, 2, 3, ties=(("m0.weight", "m2.weight"),))
    assert legible(model) is model
    assert legible((model, "words")) == (model, "words")
