"""Section a: what a placed model computes is what the resident model computes on the same device."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import torch
from configs import write_config
from models import checkpoint, inputs_of, plain
from safetensors import safe_open

import devmap
from devmap.devices.accelerator import AcceleratorBackend
from devmap.runtime.streaming.slot import Slot
from devmap.runtime.streaming.streamed_block import StreamedBlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machine import Machine

__all__ = ["run"]

_NEW_TOKENS = 6


def run(machine: Machine, root: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each model and placement.

    The largest difference of logits, and whether tokens are equal.
    """
    real = not machine.is_simulated
    for name in ("llama", "mixtral", "t5", "whisper"):
        folder = checkpoint(name, root, real=real)
        reference = plain(name, folder, machine.device())
        inputs = inputs_of(name, reference, machine.device())
        want, tokens = _logits(reference, inputs), _generated(reference, inputs)
        total = sum(each.nbytes for each in reference.state_dict().values())
        largest = max(
            sum(parameter.nbytes for parameter in module.parameters())
            for path, module in reference.named_modules()
            if path.rpartition(".")[2].isdecimal()
        )
        del reference
        machine.empty_cache()
        for label, options in _placements(machine, total, largest).items():
            row: dict[str, Any] = {"model": name, "placement": label, "bytes": total}
            try:
                row |= _compared(write_config(folder, label, **options), machine, inputs, want, tokens)
            except devmap.DevmapError as error:
                row |= {"ok": False, "error": str(error)[:400]}
            yield row
            machine.empty_cache()
    folder = checkpoint("llama", root, real=real)
    yield _trained(folder, machine)
    yield _removed(folder)
    yield _poisoned(checkpoint("llama", root, real=False), machine, passes=300 if real else 20)


def _placements(machine: Machine, total: int, largest: int) -> dict[str, dict[str, Any]]:
    half = total // 2 + 2 * largest
    offered = {0: half} | ({1: half} if machine.count > 1 else {})
    tight = {0: total // 8 + 2 * largest}
    found: dict[str, dict[str, Any]] = {
        "auto, all resident": {"memory": {0: 2 * total}},
        "auto, cpu and disk": {"memory": {**tight, "cpu": total // 4, "disk": 4 * total}},
        "balanced, cpu": {"device_map": "balanced", "memory": {**tight, "cpu": 2 * total}},
        "all on disk, executed on 0": {"memory": {0: 2 * largest + total // 8, "disk": 4 * total}},
    }
    if machine.count > 1:
        found["balanced over two"] = {"device_map": "balanced", "memory": offered | {"cpu": 2 * total}}
    return found


def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits.float().cpu()


def _generated(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    asked = {key: value for key, value in inputs.items() if key != "decoder_input_ids"}
    found: torch.Tensor = model.generate(**asked, max_new_tokens=_NEW_TOKENS, do_sample=False)
    return found.cpu()


def _compared(
    config: Path, machine: Machine, inputs: dict[str, torch.Tensor], want: torch.Tensor, tokens: torch.Tensor
) -> dict[str, Any]:
    model: Any = devmap.load(config, progress=False)
    got = [_logits(model, inputs) for _ in range(3)]  # recorded, prefetched, wrapped round
    difference = max(float((each - want).abs().max()) for each in got)
    scale = float(want.abs().max())
    same_tokens = bool(torch.equal(_generated(model, inputs), tokens))
    stats = model.devmap.stats()
    row = {
        "difference": difference,
        "bit_for_bit": difference == 0.0,
        "tokens_equal": same_tokens,
        "streamed_bytes": stats.streamed_bytes,
        "misses": stats.misses,
        # Kernels of other shapes may be chosen on another device; on one device the same kernels run.
        "ok": difference <= 1e-2 * scale and same_tokens,
    }
    model.devmap.remove()
    machine.synchronize()
    return row


def _trained(folder: Path, machine: Machine) -> dict[str, Any]:
    """Compare a step of low-rank adapters on frozen streamed blocks with the same on the resident model."""
    reference = plain("llama", folder, machine.device())
    inputs = inputs_of("llama", reference, machine.device())
    total = sum(each.nbytes for each in reference.state_dict().values())
    want = _adapted_step(reference, inputs, machine)
    del reference
    machine.empty_cache()
    config = write_config(folder, "lora", memory={0: total * 2 // 3, "cpu": total, "disk": 4 * total})
    model: Any = devmap.load(config, progress=False)
    got = _adapted_step(model, inputs, machine)
    model.devmap.remove()
    loss = abs(want[0] - got[0])
    gradient = max(
        float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))
        for a, b in zip(want[1], got[1], strict=True)
    )
    return {
        "model": "llama",
        "placement": "adapter step",
        "loss_difference": loss,
        "gradient_relative": gradient,
        "ok": loss <= 1e-2 * max(1.0, abs(want[0])) and gradient <= 5e-2,
    }


def _adapted_step(
    model: Any, inputs: dict[str, torch.Tensor], machine: Machine
) -> tuple[float, list[torch.Tensor]]:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(9)
    adapters: list[torch.Tensor] = []
    handles = []
    width = model.config.hidden_size
    for path, module in model.named_modules():
        if path.endswith("q_proj"):
            pair = [
                torch.randn(size, generator=generator).mul(0.02).to(machine.device()).requires_grad_()
                for size in ((width, 4), (4, width))
            ]
            adapters += pair
            handles.append(module.register_forward_hook(_adapter(*pair)))
    logits = model(**inputs).logits.float()
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), inputs["input_ids"][:, 1:].reshape(-1)
    )
    loss.backward()
    for handle in handles:
        handle.remove()
    return float(loss), [each.grad.float().cpu() for each in adapters if each.grad is not None]


def _adapter(down: torch.Tensor, up: torch.Tensor) -> Any:
    def add(_: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = args[0]
        return output + (x @ down.to(x.device, x.dtype)) @ up.to(x.device, x.dtype)

    return add


def _removed(folder: Path) -> dict[str, Any]:
    """Compare every tensor after `remove()` with the stored one."""
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    config = write_config(folder, "removed", memory={0: total * 2 // 3, "cpu": total // 4, "disk": 4 * total})
    model: Any = devmap.load(config, progress=False)
    state = model.devmap.remove().state_dict()
    wrong = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            wrong += sum(not torch.equal(file.get_tensor(key), state[key].cpu()) for key in file.keys())  # noqa: SIM118
    return {
        "model": "llama",
        "placement": "remove()",
        "wrong_tensors": wrong,
        "tensors": len(state),
        "ok": wrong == 0,
    }


def _poisoned(folder: Path, machine: Machine, *, passes: int) -> dict[str, Any]:
    """Run many passes with slots that are filled with NaN on release and copies that are late at random."""
    reference = plain("llama", folder, machine.device())
    inputs = inputs_of("llama", reference, machine.device(), batch=1, length=8)
    want = _logits(reference, inputs)
    total = sum(each.nbytes for each in reference.state_dict().values())
    del reference
    config = write_config(folder, "poisoned", memory={0: total * 3 // 4, "cpu": total, "disk": 4 * total})
    differing = 0
    with _late_copies_into_poisoned_slots(machine):
        model: Any = devmap.load(config, progress=False)
        for _ in range(passes):
            differing += not torch.equal(_logits(model, inputs), want)
        streamed = model.devmap.stats().streamed_bytes
        model.devmap.remove()
    return {
        "model": "llama",
        "placement": "poisoned slots, late copies",
        "passes": passes,
        "differing": differing,
        "streamed_bytes": streamed,
        "ok": differing == 0 and streamed > 0,
    }


@contextlib.contextmanager
def _late_copies_into_poisoned_slots(machine: Machine) -> Iterator[None]:
    """Simulated devices poison and delay by themselves; real ones are made to.

    A slot is poisoned on the compute stream behind the kernels of its block and before their mark is
    recorded, so a copy that keeps the rules comes after the poison, and one that does not is overwritten by
    it.
    """
    if machine.is_simulated:
        yield
        return
    unbind, copy = StreamedBlock.unbind, AcceleratorBackend.copy
    chance = random.Random(5)

    def poison(block: StreamedBlock) -> None:
        place = block.place
        unbind(block)
        if isinstance(place, Slot):
            place.slab.data.fill_(255)  # `.data` has a write counter of its own: the model wrote nothing

    def late(
        backend: AcceleratorBackend, to: torch.Tensor, source: torch.Tensor, *, stream: Any = None
    ) -> None:
        if stream is not None and machine.kind == "cuda":
            with torch.cuda.stream(stream):
                torch.cuda._sleep(chance.randrange(1, 400_000))  # noqa: SLF001 - cycles; torch's tests use it so
        copy(backend, to, source, stream=stream)

    StreamedBlock.unbind, AcceleratorBackend.copy = poison, late  # type: ignore[method-assign]
    try:
        yield
    finally:
        StreamedBlock.unbind, AcceleratorBackend.copy = unbind, copy  # type: ignore[method-assign]
