"""Folders of timm: described, planned and loaded as timm itself loads them.

timm needs torchvision, whose builds on the package index go with CUDA builds of torch alone. Install it
(`pip install timm`) beside such a torch; `make test` installs none, and skips this module.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

import devmap
from devmap.errors import LoadError
from devmap.inventory.reader import read_checkpoint
from tests.runtime.test_other_libraries import run_over_tiers

if TYPE_CHECKING:
    from pathlib import Path

timm = pytest.importorskip("timm", reason="timm is not installed: see the head of this module")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TIMM: dict[str, dict[str, object]] = {
    "test_vit": {},
    "test_resnet": {},
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "window_size": 4,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [1, 2],
    },
}


@pytest.mark.parametrize("name", TIMM)
def test_a_folder_of_timm_runs_over_all_tiers_as_timm_loads_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {**TIMM[name], "num_classes": 7}
    made = timm.create_model(name, **arguments)
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    size = made.pretrained_cfg["input_size"] if "img_size" not in arguments else (3, 64, 64)
    config = {
        "architecture": name,
        "num_classes": 7,
        "model_args": arguments,
        "pretrained_cfg": made.pretrained_cfg,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    inventory = read_checkpoint(tmp_path, through_transformers=True)
    assert inventory.no_split_module_classes, "its blocks stay whole"
    picture = torch.randn(1, *size)
    with torch.no_grad():
        want = plain(picture)
    run_over_tiers(tmp_path, inventory.nbytes, lambda model: model(picture), want)


def test_a_model_that_timm_does_not_have_is_said(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "no_such_net", "num_classes": 2}')
    path = tmp_path / "x.devmap.yaml"
    path.write_text("version: 1\nmodel: {checkpoint: .}\nmax_memory: {cpu: 1GB}\n")
    with pytest.raises(LoadError, match="timm has no model 'no_such_net'"):
        devmap.load(path, progress=False)
