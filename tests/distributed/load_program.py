"""Two ranks that load a config's model with `devmap.load`, as under torchrun: a program of its own.

`python -m tests.distributed.load_program FOLDER` imports what it needs once, forks the ranks of each case,
and writes what they found to FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

import devmap
from devmap.api.models.loading import load
from devmap.api.models.running import run
from devmap.config.document import read_config
from devmap.distributed.checkpoints import load_checkpoint, save_checkpoint
from devmap.distributed.training import StageTrainer
from devmap.errors import DevmapError
from devmap.plan.lock import lock_path, write_lock
from devmap.report.run import render_run
from devmap.testing import simulated_devices

RANKS = 2
CONFIG = """\
version: 1
model: {checkpoint: model}
machine:
  nodes:
    a: {devices: {0: {memory: 4MB}, cpu: {memory: 16GB}, disk: {memory: 100GB}}}
    b: {devices: {0: {memory: 4MB}, cpu: {memory: 16GB}, disk: {memory: 100GB}}}
max_memory: {0: 120KB, cpu: 60KB, disk: 1GB}
"""
TRAINING = (
    CONFIG.replace("{0: 120KB, cpu: 60KB, disk: 1GB}", "{0: 4MB}")
    + """\
workload: {kind: training, batch_size: 4, sequence_length: 8, optimizer: sgd}
parallel: {microbatches: 2}
"""
)
BATCH = [[(7 * row + 3 * column) % 90 + 1 for column in range(8)] for row in range(4)]
STEPS = 3
PROMPT = [[7, 3, 9, 41], [0, 0, 5, 12]]


def make(folder: Path) -> dict[str, Any]:
    """Save a model with its config; return the tokens and the losses of the plain model."""
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.3,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder / "model")
    (folder / "c.devmap.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "other.devmap.yaml").write_text(CONFIG.replace("60KB", "61KB"), encoding="utf-8")
    (folder / "absent.devmap.yaml").write_text(
        CONFIG.replace("checkpoint: model", "checkpoint: gone"), encoding="utf-8"
    )
    (folder / "train.devmap.yaml").write_text(TRAINING, encoding="utf-8")
    locked = folder / "locked.devmap.yaml"
    locked.write_text(CONFIG, encoding="utf-8")
    read = read_config(locked)
    write_lock(devmap.resolve(read), lock_path(locked))
    return {"tokens": tokens_of(model), "losses": losses_of(model)}


def losses_of(model: Any) -> list[float]:
    """Train the plain model; return the loss of each step."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.tensor(BATCH)
    found = []
    for _ in range(STEPS):
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss))
    return found


def train(path: Path, folder: Path) -> dict[str, Any]:
    """Train both stages, save them, and read them back into a model that was loaded anew."""
    with simulated_devices({0: 4_000_000}, activations=False):
        model: Any = load(path, progress=False)
        spread = model.train().devmap_stages
        trainer = StageTrainer(spread, microbatches=2)
        optimizer = torch.optim.SGD([weight for _, weight in spread.named_parameters()], lr=0.1)
        batch = torch.tensor(BATCH)
        losses = []
        for _ in range(STEPS):
            losses.append(trainer.step(input_ids=batch, labels=batch))
            optimizer.step()
            optimizer.zero_grad()
        save_checkpoint(spread, folder / "trained")
        trained = {name: weight.detach().cpu().clone() for name, weight in spread.named_parameters()}
        with torch.no_grad():
            for _, weight in spread.named_parameters():
                weight.zero_()
        load_checkpoint(spread, folder / "trained")
        again = all(
            torch.equal(trained[name], weight.detach().cpu()) for name, weight in spread.named_parameters()
        )
        return {"losses": losses, "reloads": again}


def tokens_of(model: Any) -> list[list[int]]:
    ids = torch.tensor(PROMPT)
    found = model.generate(
        input_ids=ids, attention_mask=(ids != 0).long(), max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    tokens: list[list[int]] = found.tolist()
    return tokens


def rank(case: str, folder: Path, number: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    name = {"loads": "c", "runs": "c", "lock": "locked", "trains": "train"}.get(case, "c")
    if number == 1 and case in {"other", "absent"}:
        name = case
    path = folder / f"{name}.devmap.yaml"
    if case == "runs":
        ran = run(path, simulated=True, passes=2, progress=False)
        return {"rank": ran.rank, "text": render_run(ran)}
    if case == "trains":
        return train(path, folder)
    with simulated_devices({0: 120_000}, activations=False):
        try:
            model: Any = load(path, progress=False)
        except DevmapError as error:
            return {"error": type(error).__name__, "message": error.message}
        plan = model.devmap.plan
        return {
            "tokens": tokens_of(model),
            "owned": [placement.path for placement in plan.placements],
            "tiers": sorted({str(placement.home) for placement in plan.placements}),
        }


CASES = ("loads", "runs", "lock", "other", "absent", "trains")


def main(folder: Path) -> int:
    plain = make(folder)
    pids = []
    for case in CASES:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for number in range(RANKS):
            pid = os.fork()
            if pid:
                pids.append(pid)
                continue
            os.environ.update(
                RANK=str(number),
                WORLD_SIZE=str(RANKS),
                LOCAL_RANK="0",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                DEVMAP_RANK_TIMEOUT="60",
            )
            found = rank(case, folder, number)
            (folder / f"{case}-{number}.json").write_text(json.dumps(found), encoding="utf-8")
            os._exit(0)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    everything = {
        case: [
            json.loads((folder / f"{case}-{number}.json").read_text(encoding="utf-8"))
            for number in range(RANKS)
        ]
        for case in CASES
    }
    (folder / "found.json").write_text(json.dumps({"plain": plain, **everything}), encoding="utf-8")
    return max(map(abs, statuses))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
