"""Two nodes of two accelerators each, on this machine: a model spread over four processes.

Run it with `make cluster-demo`. A small Llama with random weights is saved, a config that names two nodes is
validated and planned, and two torchrun agents start two ranks each, over simulated accelerators that hold
less than the model: part of it streams from CPU memory and from the disk. The tokens are held against the
plain model's. Then a rank is killed and all are started again; and one node gets an edited config, which all
refuse.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DEVMAP_RANK_TIMEOUT", "60")
os.environ.setdefault(
    "TORCH_CPP_LOG_LEVEL", "ERROR"
)  # what the peers of a killed rank hear from their sockets

import torch
import transformers

import devmap
from devmap.config.document import read_config
from devmap.config.values.device import DISK
from devmap.config.values.size import format_bytes
from devmap.errors import DevmapError
from devmap.testing import simulated_devices

CONFIG = """\
version: 1
model: {checkpoint: model}
machine:
  nodes:
    a: &node {devices: {0: {memory: 4MB}, 1: {memory: 4MB}, cpu: {memory: 16GB}, disk: {memory: 100GB}}}
    b: *node
  network: {bandwidth: 25Gbit/s, latency: 50us}
max_memory: {0: 2.2MB, 1: 2.2MB, cpu: 1.2MB, disk: 1GB}
device_map: balanced
"""
PROMPT = [[7, 3, 99, 41, 5, 12]]
NEW_TOKENS = 12
STAGES = 4


def main() -> int:
    """Run the demo; 0 when every step ends as it should."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = make(folder)
        print("== 1. The config, checked with no node there")
        show("validate", folder / "cluster.devmap.yaml")
        print("\n== 2. The plan: a stage for each accelerator, host memory and disk of its own node")
        show("plan", folder / "cluster.devmap.yaml")
        print("\n== 3. How to start it")
        show("plan", folder / "cluster.devmap.yaml", "--torchrun")
        print("\n== 4. Two nodes of two ranks: tokens beside the plain model's")
        wrong = told(launch(folder, "plain run"), folder, plain)
        print("\n== 5. Rank 2 is killed while it generates; torchrun starts all ranks again")
        wrong += told(launch(folder, "killed", "--max-restarts=1"), folder, plain)
        print("\n== 6. Node b has an edited config")
        refused = launch(folder, "edited")
        lines = sorted({line for line in refused.splitlines() if "config is" in line})
        print("\n".join(lines))
        wrong += len(lines) != 1
    print(f"\n{'every step ended as it should' if not wrong else f'{wrong} steps went wrong'}")
    return 1 if wrong else 0


def make(folder: Path) -> list[int]:
    """Save a model and its config; return the tokens that the plain model gives."""
    config = transformers.LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        eos_token_id=None,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder / "model")
    (folder / "cluster.devmap.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "edited.devmap.yaml").write_text(CONFIG.replace("1.2MB", "1.3MB"), encoding="utf-8")
    return generated(model)


def generated(model: Any, *, dies_after: int | None = None) -> list[int]:
    """Return the tokens that a model adds to the prompt, the likeliest each time.

    With `dies_after` the process is killed once so many are there.
    """
    ids = torch.tensor(PROMPT)

    def look(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if dies_after is not None and tokens.shape[1] >= len(PROMPT[0]) + dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return scores

    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        logits_processor=transformers.LogitsProcessorList([look]),
    )
    tokens: list[int] = found[0].tolist()
    return tokens


def launch(folder: Path, scenario: str, *options: str) -> str:
    """Start both nodes' agents, as on two machines; return what all ranks printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agents = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}"),
                *("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}", *options),
                *(__file__, "--rank", str(folder), scenario),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for node in range(2)
    ]
    return "".join(agent.communicate()[0] for agent in agents)


def told(printed: str, folder: Path, plain: list[int]) -> int:
    """Print what the ranks wrote down; return whether their tokens are other than the plain model's."""
    del printed
    ranks = [json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in range(STAGES)]
    for rank, found in enumerate(ranks):
        print(
            f"rank {rank}, {found['device']}: owns {format_bytes(found['owned'])}, of which "
            f"{format_bytes(found['on_disk'])} stay on disk; read {format_bytes(found['read'])} while "
            f"loading; streams {format_bytes(found['streamed'])}; attempt {found['attempt']}"
        )
    wrong = any(found["tokens"] != plain for found in ranks)
    print(f"tokens {ranks[0]['tokens'][len(PROMPT[0]) :]}")
    print(f"plain  {plain[len(PROMPT[0]) :]}: {'they differ' if wrong else 'equal on every rank'}")
    return int(wrong)


def rank(folder: Path, scenario: str) -> int:
    """Load one stage and generate, in a process that torchrun started."""
    number, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    name = "edited" if scenario == "edited" and number >= STAGES // 2 else "cluster"
    config = read_config(folder / f"{name}.devmap.yaml")
    memory = config.max_memory or {}
    budgets = {device.index: int(amount) for device, amount in memory.items() if device.is_accelerator}  # type: ignore[call-overload]
    with simulated_devices(budgets, activations=False):
        read: list[int] = [0]
        try:
            model = devmap.load(config, progress=lambda done, _: read.append(done))
        except DevmapError as error:
            print(f"rank {number} refuses: {error.message}" if not number else "", flush=True)
            return 1
        plan = model.devmap.plan
        dies = scenario == "killed" and number == 2 and attempt == 0
        found = {
            "device": f"{'ab'[number // 2]}/{number % 2}",
            "owned": sum(placement.nbytes for placement in plan.placements),
            "read": read[-1],
            "streamed": sum(placement.home_bytes for placement in plan.streamed),
            "on_disk": sum(placement.home_bytes for placement in plan.placements if placement.home == DISK),
            "attempt": attempt,
            "tokens": generated(model, dies_after=5 if dies else None),
        }
    (folder / f"rank{number}.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


def show(*arguments: str | Path) -> None:
    """Print a devmap command and what it says."""
    print(f"$ devmap {' '.join(Path(each).name if isinstance(each, Path) else each for each in arguments)}")
    subprocess.run([sys.executable, "-m", "devmap", *map(str, arguments)], check=True)


if __name__ == "__main__":
    sys.exit(rank(Path(sys.argv[2]), sys.argv[3]) if sys.argv[1:2] == ["--rank"] else main())
