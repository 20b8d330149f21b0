"""A model over two processes: devmap beside Transformers' pipeline parallelism and one process, in one run.

Usage: python benchmarks/cluster.py [--quick] [--repeat N]

Tokens a second of greedy generation, seconds until the first call can be made, bytes that a rank reads over
bytes that it owns; and the time of a step over what the planner's model of it says, at two bandwidths. The
network is shaped by `tc` in a network namespace of its own, which needs Linux and root; without them those
rows are left out, and said so. Compute is measured in one process, so that the model is judged by what it
adds: borders, and the order of stages.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
import transformers
from streaming import head, row

from devmap.api.models.building import build
from devmap.config.document import read_config
from devmap.config.values.device import CPU
from devmap.distributed.engine import spread
from devmap.distributed.training import StageTrainer
from devmap.plan.model import Placement, Plan
from devmap.planning.stages.timing import StageTimes

if TYPE_CHECKING:
    from collections.abc import Callable

RANKS = 2
TOKENS, PROMPT, LENGTH, BATCH, MICROBATCHES = 24, 8, 128, 4, 4
CONFIG = "version: 1\nmodel: {checkpoint: model}\n"
BANDWIDTHS = {"100 Mbit/s": 100e6 / 8, "1 Gbit/s": 1e9 / 8}


def size(*, quick: bool) -> dict[str, Any]:
    """Return the figures of the model."""
    return {
        "hidden_size": 256 if quick else 512,
        "intermediate_size": 768 if quick else 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 2048,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "eos_token_id": None,
    }


def seconds_of(call: Callable[[], object], repeat: int) -> float:
    """Return the median seconds of a call, after one that does not count."""
    call()
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def ids(batch: int, length: int) -> torch.Tensor:
    """Return token ids, the same everywhere."""
    return torch.arange(batch * length).reshape(batch, length) % 2000 + 5


def generate(model: Any) -> torch.Tensor:
    """Return the prompt with new tokens, the likeliest each time."""
    prompt = ids(1, PROMPT)
    found: torch.Tensor = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    return found


def forward(model: Any) -> None:
    """Make one pass over a batch of whole sequences."""
    with torch.no_grad():
        model(input_ids=ids(BATCH, LENGTH), use_cache=False, logits_to_keep=1)


def train(model: Any) -> None:
    """Make one training step over the batch, microbatch by microbatch."""
    for part in ids(BATCH, LENGTH).chunk(MICROBATCHES):
        model(input_ids=part, labels=part, use_cache=False).loss.backward()


def stage_seconds(model: Any, repeat: int) -> list[float]:
    """Return the seconds that each half of a model's layers computes, the ends of the model with them."""
    layers = model.model.layers
    half = len(layers) // RANKS
    times: list[list[float]] = []
    marks: list[float] = []
    hook = layers[half].register_forward_pre_hook(lambda *_: marks.append(time.perf_counter()))
    for _ in range(repeat + 1):
        marks.clear()
        start = time.perf_counter()
        forward(model)
        end = time.perf_counter()
        times.append([marks[0] - start, end - marks[0]])
    hook.remove()
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


# --- in the ranks


def one(folder: Path, repeat: int) -> dict[str, Any]:
    """Measure the plain model in one process."""
    started = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    loaded = time.perf_counter() - started
    return {
        "start": loaded,
        "tokens": generate(model).tolist(),
        "seconds": seconds_of(lambda: generate(model), repeat),
        "forward": seconds_of(lambda: forward(model), repeat),
        "stages": stage_seconds(model, repeat),
        "train": seconds_of(lambda: train(model), repeat),
    }


def peer(folder: Path, repeat: int) -> dict[str, Any]:
    """Measure Transformers' own pipeline parallelism."""
    from transformers.distributed import DistributedConfig  # noqa: PLC0415 - newer than what devmap needs

    started = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "model", distributed_config=DistributedConfig(pp_size=RANKS)
    ).eval()
    loaded = time.perf_counter() - started
    return {
        "start": loaded,
        "tokens": generate(model).tolist(),
        "seconds": seconds_of(lambda: generate(model), repeat),
    }


def spread_model(folder: Path, read: list[int]) -> Any:
    """Load this rank's half of the layers onto its CPU."""
    config = read_config(folder / "c.devmap.yaml")
    built = build(config)
    layers = len(built.model.model.layers)
    assignment = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    assignment |= {f"model.layers.{layer}": layer * RANKS // layers for layer in range(layers)}
    own = [path for path, stage in assignment.items() if stage == dist.get_rank()]
    placements = tuple(
        Placement(
            path,
            CPU,
            CPU,
            sum(each.nbytes for name, each in built.inventory.tensors.items() if name.startswith(f"{path}.")),
        )
        for path in own
    )
    plan = Plan({}, placements, (), "manual", no_split_module_classes=built.inventory.no_split_module_classes)
    found = spread(
        built.model,
        plan,
        assignment,
        inventory=built.inventory,
        progress=lambda done, _: read.append(done),
    )
    built.finish(built.model)
    return found


def ours(folder: Path, repeat: int) -> dict[str, Any]:
    """Measure devmap's two stages."""
    read = [0]
    started = time.perf_counter()
    found = spread_model(folder, read)
    loaded = time.perf_counter() - started
    model = found.model
    owned = sum(parameter.nbytes for _, parameter in found.named_parameters())
    measured = {
        "start": loaded,
        "tokens": generate(model).tolist(),
        "seconds": seconds_of(lambda: generate(model), repeat),
        "forward": seconds_of(lambda: forward(model), repeat),
        "read": read[-1],
        "owned": owned,
    }
    trainer = StageTrainer(found, MICROBATCHES, "gpipe")
    model.train()
    batch = ids(BATCH, LENGTH)
    measured["step"] = seconds_of(
        lambda: trainer.step(input_ids=batch, labels=batch, use_cache=False), repeat
    )
    return measured


CASES: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int]] = {
    "one process": (one, 1),
    "Transformers": (peer, RANKS),
    "devmap": (ours, RANKS),
}


def ranks(case: str, folder: Path, repeat: int) -> int:
    """Fork the ranks of a case, which write what they measured."""
    call, count = CASES[case]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        os.environ.update(
            RANK=str(number),
            WORLD_SIZE=str(count),
            LOCAL_RANK=str(number),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        warnings.simplefilter("ignore")
        status = 1
        try:
            if count > 1:
                dist.init_process_group("gloo")
            found = call(folder, repeat)
            (folder / f"{case}-{number}.json").write_text(json.dumps(found), encoding="utf-8")
            status = 0
        finally:
            os._exit(status)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


# --- in the parent


def measured(
    case: str, folder: Path, repeat: int, bandwidth: float | None = None
) -> list[dict[str, Any]] | None:
    """Run a case in processes of its own, on a network of so many bytes a second; None where it fails."""
    for old in folder.glob(f"{case}-*.json"):
        old.unlink()
    program = [sys.executable, __file__, "--ranks", case, "--folder", str(folder), "--repeat", str(repeat)]
    if bandwidth is not None:
        bits = int(bandwidth * 8)
        shape = f"ip link set lo up && tc qdisc add dev lo root tbf rate {bits}bit burst 128kb latency 400ms"
        program = ["unshare", "-n", "bash", "-c", f'{shape} && exec "$@"', "bash", *program]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    count = CASES[case][1]
    files = [folder / f"{case}-{number}.json" for number in range(count)]
    if ran.returncode or not all(file.exists() for file in files):
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        print(f"  {case}: did not run ({lines[-1][:160] if lines else ran.returncode})")
        return None
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def main() -> int:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller model, fewer repeats")
    parser.add_argument("--repeat", type=int, default=None)
    parser.add_argument("--ranks", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    repeat = options.repeat or (5 if options.quick else 11)
    if options.ranks:
        return ranks(options.ranks, options.folder, repeat)
    head("two processes, gloo, CPU", "figure")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**size(quick=options.quick))
        transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
        (folder / "c.devmap.yaml").write_text(CONFIG, encoding="utf-8")
        report(folder, repeat, config.hidden_size)
    return 0


def report(folder: Path, repeat: int, hidden: int) -> None:
    """Print a row for each figure."""
    alone = measured("one process", folder, repeat)
    if alone is None:
        return
    plain = alone[0]
    for case in ("Transformers", "devmap"):
        found = measured(case, folder, repeat)
        if found is None:
            continue
        equal = "equal tokens" if all(each["tokens"] == plain["tokens"] for each in found) else "OTHER TOKENS"
        rate, first = TOKENS / found[0]["seconds"], TOKENS / plain["seconds"]
        row(
            f"{case}: tokens a second over one process's",
            f"{rate / first:.2f} ({rate:.0f} of {first:.0f}; {equal})",
        )
        start = max(each["start"] for each in found)
        row(f"{case}: start-up over one process's", f"{start / plain['start']:.2f}")
        if case == "devmap":
            row("devmap: bytes read over owned", f"{max(each['read'] / each['owned'] for each in found):.3f}")
    if shutil.which("tc") is None or os.geteuid():
        print("  no `tc`, or not root: step times at shaped bandwidths are left out")
        return
    border = BATCH * LENGTH * hidden * 4
    for words, bandwidth in BANDWIDTHS.items():
        found = measured("devmap", folder, repeat, bandwidth)
        if found is None:
            continue
        passing = StageTimes(tuple(plain["stages"]), (border / bandwidth,))
        once = passing.step(1, training=False, generating=False)
        share = [each / sum(plain["stages"]) for each in plain["stages"]]
        part = plain["train"] / MICROBATCHES / 3
        training = StageTimes(tuple(each * part for each in share), (border / MICROBATCHES / bandwidth,))
        step = training.step(MICROBATCHES, training=True, generating=False)
        assert once is not None
        assert step is not None
        row(
            f"{words}: a pass over its model",
            f"{found[0]['forward'] / once:.2f} ({found[0]['forward'] * 1e3:.0f} ms)",
        )
        row(
            f"{words}: a training step over its model",
            f"{found[0]['step'] / step:.2f} ({found[0]['step'] * 1e3:.0f} ms)",
        )


if __name__ == "__main__":
    sys.exit(main())
