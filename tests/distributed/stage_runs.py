"""Models spread over processes of this machine, tried in all of them: a program of its own.

It imports what it needs once and then forks the ranks: `python -m tests.distributed.stage_runs FOLDER` writes
what each rank found to FOLDER/results.json. The tests beside it read that.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
import transformers
from torch._C._distributed_c10d import TCPStore

from devmap.api.models.building import build
from devmap.config.document import read_config
from devmap.config.values.device import CPU, DISK, parse_device
from devmap.distributed.checkpoints import load_checkpoint, save_checkpoint
from devmap.distributed.engine import spread
from devmap.distributed.training import StageTrainer
from devmap.errors import DevmapError
from devmap.plan.model import Placement, Plan
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from devmap.config.values.device import Device
    from devmap.distributed.engine import Spread
    from devmap.inventory.model import Inventory
    from devmap.runtime.residents import Progress

__all__ = [
    "FAMILIES",
    "OVER_FOUR",
    "STREAMED",
    "WAYS",
    "assignment_of",
    "free_port",
    "loaded",
    "make_checkpoint",
    "stage_plan",
]

Schedule = Literal["1f1b", "gpipe"]

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 95,
}
_WORDS: dict[str, Any] = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 95}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", _SMALL),
    "llama-tied": ("LlamaForCausalLM", {**_SMALL, "tie_word_embeddings": True}),
    "qwen2": (
        "Qwen2ForCausalLM",
        {**_SMALL, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    ),
    "gemma": ("GemmaForCausalLM", {**_SMALL, "head_dim": 8}),
    "gemma3": (
        "Gemma3ForCausalLM",
        {
            **_SMALL,
            "head_dim": 8,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "mixtral": ("MixtralForCausalLM", {**_SMALL, "num_local_experts": 4}),
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "n_embd": 32,
            "n_layer": 4,
            "n_head": 4,
            "n_positions": 64,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            **_WORDS,
        },
    ),
    "opt": (
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 64,
            **_WORDS,
        },
    ),
    "mamba": ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 4, "state_size": 8, **_WORDS}),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "d_model": 32,
            "d_ff": 48,
            "d_kv": 8,
            "num_layers": 3,
            "num_decoder_layers": 3,
            "dropout_rate": 0.0,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            **_WORDS,
        },
    ),
    "bart": (
        "BartForConditionalGeneration",
        {
            "d_model": 32,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
            **_WORDS,
        },
    ),
}
"""By the names that tests use: the class and its config."""

OVER_FOUR = ("llama-tied", "gemma3", "t5")
"""What is tried over four processes as well."""

STREAMED = ("llama-tied", "t5")
"""What is tried with a simulated accelerator, CPU and disk in each process as well."""

TRAINED: dict[str, Schedule] = {
    "llama-tied": "1f1b",
    "gpt2": "gpipe",
    "mixtral": "1f1b",
    "t5": "1f1b",
}
"""What is trained, and by which schedule."""

TRAINED_OVER_FOUR = ("llama-tied", "t5")

WAYS = ("greedy", "padded", "beams", "sampled", "forward")
"""How each is called."""


def make_checkpoint(folder: Path, name: str, **more: Any) -> Path:
    """Save a small model of random weights; `more` are figures of its config."""
    class_name, figures = FAMILIES.get(name, ("LlamaForCausalLM", _SMALL))
    model_class: Any = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**{**figures, **more})).eval()
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data.copy_(noise * 0.25 if parameter.dim() > 1 else parameter.data + noise * 0.1)
    model.save_pretrained(folder / name)
    return folder / name


def assignment_of(model: nn.Module, inventory: Inventory, stages: int) -> dict[str, int]:
    """Return contiguous stages of whole blocks; what stands between blocks goes with the one before."""
    blocks = [path for path, kind in inventory.modules.items() if kind in inventory.no_split_module_classes]
    found = {path: index * stages // len(blocks) for index, path in enumerate(blocks)}
    last = 0
    for name in model.state_dict(keep_vars=True):
        block = next((path for path in blocks if name.startswith(f"{path}.")), None)
        if block is not None:
            last = found[block]
        else:
            found[name] = last
    return found


def stage_plan(
    assignment: Mapping[str, int], stage: int, inventory: Inventory, homes: Sequence[Device] = (CPU,)
) -> Plan:
    """Return one stage's plan: modules take turns on the homes, and execute on the first."""
    placements: list[Placement] = []
    for path in (path for path, its_stage in assignment.items() if its_stage == stage):
        nbytes = sum(
            tensor.nbytes for name, tensor in inventory.tensors.items() if f"{name}.".startswith(f"{path}.")
        )
        home = homes[len(placements) % len(homes)] if path in inventory.modules else homes[0]
        placements.append(Placement(path, home, homes[0], nbytes))
    return Plan(
        {}, tuple(placements), (), "manual", no_split_module_classes=inventory.no_split_module_classes
    )


def loaded(
    checkpoint: Path,
    scratch: Path,
    stages: int,
    homes: Sequence[Device] = (CPU,),
    progress: Progress | None = None,
    microbatches: int = 1,
) -> Spread:
    """Load this process's stage of a checkpoint; `scratch` takes its config."""
    config = scratch / f"{checkpoint.name}-{dist.get_rank()}.devmap.yaml"
    config.write_text(f"version: 1\nmodel:\n  checkpoint: {checkpoint}\nmax_memory: {{cpu: 4GB}}\n")
    built = build(read_config(config))
    assignment = assignment_of(built.model, built.inventory, stages)
    plan = stage_plan(assignment, dist.get_rank(), built.inventory, homes)
    handle = spread(
        built.model,
        plan,
        assignment,
        inventory=built.inventory,
        packings=built.packings,
        makers=built.makers,
        progress=progress,
        microbatches=microbatches,
    )
    built.finish(built.model)
    return handle


def _calls(model: Any) -> dict[str, Callable[[], torch.Tensor]]:
    torch.manual_seed(1)
    ids = torch.randint(3, 90, (2, 9))
    mask = torch.ones_like(ids)
    ids[0, :4] = mask[0, :4] = 0
    tokens = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    both = {"attention_mask": mask, **tokens}
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}

    def sampled() -> torch.Tensor:
        torch.manual_seed(5 + (dist.get_rank() if hasattr(model, "devmap_stages") else 0))
        found: torch.Tensor = model.generate(ids, **{**both, "do_sample": True})
        return found

    return {
        "greedy": lambda: model.generate(ids[1:], attention_mask=mask[1:], **tokens),
        "padded": lambda: model.generate(ids, **both),
        "beams": lambda: model.generate(ids, num_beams=2, **both),
        "sampled": sampled,
        "forward": lambda: model(input_ids=ids, attention_mask=mask, use_cache=False, **decoder).logits,
    }


def _equal_to_plain(folder: Path, name: str, stages: int, homes: Sequence[Device] = (CPU,)) -> dict[str, Any]:
    """How far each way's result is from the plain model's, and what crossed the borders."""
    handle = loaded(folder / name, folder, stages, homes)
    model_class: Any = getattr(transformers, FAMILIES[name][0])
    plain = _calls(model_class.from_pretrained(folder / name).eval())
    found: dict[str, Any] = {"owned": sorted(name for name, _ in handle.named_parameters())}
    for way, call in _calls(handle.model).items():
        expected = plain[way]()
        before = handle.traffic.sent_bytes, handle.traffic.sent
        got = call()
        found[way] = {
            "is_plain": type(got) is torch.Tensor,
            "largest_difference": float((got - expected).detach().abs().max()),
            "sent_bytes": handle.traffic.sent_bytes - before[0],
            "sent": handle.traffic.sent - before[1],
        }
    model: Any = handle.model
    stats = model.devmap.stats()
    found["streamed_bytes"], found["misses"] = stats.streamed_bytes, stats.misses
    return found


def _trained(folder: Path, name: str, stages: int, schedule: Schedule) -> dict[str, Any]:
    """Two steps of training, of two lengths, beside the plain model's: losses and gradients."""
    handle = loaded(folder / name, folder, stages)
    model_class: Any = getattr(transformers, FAMILIES[name][0])
    plain = model_class.from_pretrained(folder / name).train()
    handle.model.train()
    trainer = StageTrainer(handle, microbatches=stages, schedule=schedule)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in (plain, handle.model)]
    found: dict[str, Any] = {"losses": [], "gradients": [], "norms": []}
    for length in (8, 5):
        if length == 5:  # gradients of two batches are added up
            again = _batch(6)
            plain(**again).loss.backward()
            trainer.step(**again)
        batch = _batch(length)
        expected = plain(**batch).loss
        expected.backward()
        found["losses"].append([trainer.step(**batch), float(expected.detach())])
        gradients = {name: each.grad for name, each in plain.named_parameters(remove_duplicate=False)}
        pairs = [(each.grad, gradients[name]) for name, each in handle.named_parameters()]
        found["gradients"].append(
            max(
                float(theirs.abs().max()) if ours is None else float((ours - theirs).abs().max())
                for ours, theirs in pairs
                if theirs is not None
            )
        )
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        found["norms"].append([trainer.clip_gradients(0.5), float(norm)])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return found


def _kept(folder: Path, size: int) -> dict[str, Any]:
    """Two processes train and save; four load that and find the same, as do two that go on."""
    handle = loaded(folder / "llama-tied", folder, size)
    optimizer = torch.optim.AdamW([each for _, each in handle.named_parameters()], lr=0.01)
    where, expected = folder / "trained", folder / "trained.pt"
    if size == 2:
        trainer = StageTrainer(handle, microbatches=size)
        handle.model.train()
        trainer.step(**_batch(6))
        optimizer.step()
        save_checkpoint(handle, where, optimizer=optimizer)
        everything = handle.borders.wire.from_all(
            {name: (each.detach(), optimizer.state[each]) for name, each in handle.named_parameters()}
        )
        if dist.get_rank() == 0:
            torch.save({**everything[1], **everything[0]}, expected)
        return {}
    load_checkpoint(handle, where, optimizer=optimizer)
    known = torch.load(expected)
    known["lm_head.weight"] = known["model.embed_tokens.weight"]
    same = {
        name: torch.equal(each, known[name][0])
        and all(torch.equal(optimizer.state[each][key], value) for key, value in known[name][1].items())
        for name, each in handle.named_parameters()
    }
    absent = ""
    try:
        load_checkpoint(handle, folder / "llama")
    except DevmapError as error:
        absent = error.message
    return {"same": same, "absent": absent}


def _batch(length: int) -> dict[str, Any]:
    ids = torch.randint(3, 90, (4, length), generator=torch.Generator().manual_seed(length))
    labels = ids.clone()
    labels[0, 3:] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "use_cache": False}


def _bytes_read(folder: Path, size: int) -> dict[str, int]:
    """What the system read for this process while it loaded its stage, beside what the stage has."""
    before: list[int] = []

    def progress(done_bytes: int, total_bytes: int) -> None:
        del total_bytes
        if not done_bytes:  # the first word: nothing of the checkpoint's tensors is read yet
            before.append(_read_bytes())

    handle = loaded(folder / "llama-wide", folder, size, [parse_device(0)], progress)
    read = _read_bytes() - before[0]
    return {"read": read, "owned": sum(each.nbytes for _, each in handle.named_parameters())}


def _read_bytes() -> int:
    """Return what this process has read by system calls, from disks or their cache."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def _in_microbatches(folder: Path, name: str, size: int, homes: Sequence[Device] = (CPU,)) -> dict[str, Any]:
    """Generation of five sequences in two microbatches at once, three and two."""
    handle = loaded(folder / name, folder, size, homes, microbatches=2)
    model: Any = handle.model
    model_class: Any = getattr(transformers, FAMILIES[name][0])
    plain = model_class.from_pretrained(folder / name).eval()
    ids = torch.randint(3, 90, (5, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[0, :4] = mask[0, :4] = 0
    expected = plain.generate(ids, attention_mask=mask, max_new_tokens=9, do_sample=False, eos_token_id=None)
    stop = int(expected[0, -4])  # the first sequence ends early, and the others when they meet it
    tokens = {"attention_mask": mask, "max_new_tokens": 9, "eos_token_id": stop}
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False},
        "beams": {"do_sample": False, "num_beams": 2},
        "again": {"do_sample": False},
        "sampled": {"do_sample": True},
    }
    found = {}
    for way, options in ways.items():
        torch.manual_seed(11)
        one = plain.generate(ids, **tokens, **options)
        torch.manual_seed(11)
        two = model.generate(ids, **tokens, **options)
        found[way] = one.shape == two.shape and torch.equal(one, two)
    return {"equal": found, "at once": len(handle.root.microbatches.wires)}


def _refusals(folder: Path) -> dict[str, str]:
    """What is said to calls that cannot be right."""
    handle = loaded(folder / "llama", folder, dist.get_world_size())
    model: Any = handle.model
    ids = torch.ones(1, 3, dtype=torch.long)
    calls: dict[str, Callable[[], object]] = {
        "attentions": lambda: model(input_ids=ids, output_attentions=True),
        "hidden_states": lambda: model.generate(ids, output_hidden_states=True, max_new_tokens=1),
        "training": lambda: model.train()(input_ids=ids),
        "foreign weight": lambda: [
            (parameter + 1).plain() for parameter in model.parameters() if hasattr(parameter, "plain")
        ],
        "other arguments": lambda: model.eval()(
            input_ids=ids, **({"use_cache": True} if dist.get_rank() else {})
        ),
    }
    found = {}
    for name, call in calls.items():
        try:
            call()
        except DevmapError as error:
            found[name] = error.message
    return found


def _rank(rank: int, size: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, size, is_master=rank == 0, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    found: dict[str, Any] = {}
    for name in FAMILIES if size == 2 else OVER_FOUR:
        found[name] = _equal_to_plain(folder, name, size)
    for name in TRAINED if size == 2 else TRAINED_OVER_FOUR:
        found[f"{name} trained"] = _trained(folder, name, size, TRAINED[name])
    found["kept"] = _kept(folder, size)
    for name in STREAMED:
        found[f"{name} in microbatches"] = _in_microbatches(folder, name, size)
    if size == 2:
        found["refusals"] = _refusals(folder)
        with simulated_devices({0: "20MB"}):
            found["bytes"] = _bytes_read(folder, size)
            homes = parse_device(0), CPU, DISK
            for name in STREAMED:
                found[f"{name} streamed"] = _equal_to_plain(folder, name, size, homes)
            found["streamed in microbatches"] = _in_microbatches(folder, "llama-tied", size, homes)
    (folder / f"found-{size}-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(size: int, folder: Path) -> list[int]:
    """Fork the ranks, which take over what is imported here; return their exit statuses."""
    port = free_port()
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            status = 1
            try:
                _rank(rank, size, port, folder)
                status = 0
            except BaseException:  # noqa: BLE001 - a child must end here, whatever it met
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0])
    torch.set_num_threads(1)
    for name in FAMILIES:
        make_checkpoint(folder, name)
    make_checkpoint(folder, "llama-wide", hidden_size=256, intermediate_size=768, vocab_size=1024)
    statuses = [*_run(2, folder), *_run(4, folder)]
    return max(map(abs, statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
