"""Section e: what callers do around placed models: compile, capture graphs, use streams of their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from configs import write_config
from models import checkpoint, inputs_of, plain

import devmap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machine import Machine

__all__ = ["run"]


def run(machine: Machine, root: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each habit."""
    folder = checkpoint("llama", root, real=False)
    reference = plain("llama", folder, machine.device())
    inputs = inputs_of("llama", reference, machine.device(), batch=1, length=8)
    with torch.no_grad():
        want = reference(**inputs).logits.float().cpu()
    total = sum(each.nbytes for each in reference.state_dict().values())
    del reference
    config = write_config(folder, "habits", memory={0: total * 3 // 4, "cpu": total, "disk": 4 * total})
    yield _compiled(config, machine, inputs, want)
    yield _graphs(config, machine, inputs, want)
    yield _two_streams(config, machine, inputs, want)


def _compiled(
    config: Path, machine: Machine, inputs: dict[str, torch.Tensor], want: torch.Tensor
) -> dict[str, Any]:
    if machine.is_simulated:
        return {
            "what": "torch.compile of resident blocks",
            "ok": True,
            "note": "simulated tensors do not compile",
        }
    model: Any = devmap.load(config, progress=False)
    streamed = {block.path for block in model.devmap.blocks}
    compiled = [
        path
        for path, module in model.named_modules()
        if path.rpartition(".")[2].isdecimal() and path not in streamed
    ]
    for path in compiled:
        model.get_submodule(path).compile()
    with torch.no_grad():
        difference = float((model(**inputs).logits.float().cpu() - want).abs().max())
    model.devmap.remove()
    return {"what": "torch.compile of resident blocks", "blocks": len(compiled), "difference": difference,
            "ok": bool(compiled) and difference <= 1e-3}  # fmt: skip


def _graphs(
    config: Path, machine: Machine, inputs: dict[str, torch.Tensor], want: torch.Tensor
) -> dict[str, Any]:
    if machine.kind != "cuda":
        return {"what": "graphs", "ok": True, "note": f"{machine.kind} has no graphs"}
    model: Any = devmap.load(config, progress=False)
    streamed = [block.path for block in model.devmap.blocks]
    resident = next(
        path
        for path, module in model.named_modules()
        if path.endswith(".mlp") and path.rpartition(".")[0] not in streamed
    )
    block = model.get_submodule(resident)
    x = torch.randn(
        1, 8, model.config.hidden_size, device=machine.device(), dtype=next(block.parameters()).dtype
    )
    with torch.no_grad():
        expected = block(x)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            block(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Threads of the streaming engine go on meanwhile: only this thread's calls belong to the graph.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            captured = block(x)
        graph.replay()
        torch.cuda.synchronize()
        same = bool(torch.equal(captured, expected))
        after = float((model(**inputs).logits.float().cpu() - want).abs().max())
        refused = False
        try:
            with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
                model(**inputs)
        except devmap.StreamError:
            refused = True
        except RuntimeError as error:
            return {"what": "graphs", "ok": False, "note": f"not ours: {str(error)[:200]}"}
    model.devmap.remove()
    return {"what": "graphs", "resident_equal": same, "model_after": after, "streamed_refused": refused,
            "ok": same and after <= 1e-3 and refused}  # fmt: skip


def _two_streams(
    config: Path, machine: Machine, inputs: dict[str, torch.Tensor], want: torch.Tensor
) -> dict[str, Any]:
    """Two threads with a stream each run the model at once."""
    model: Any = devmap.load(config, progress=False)
    wrong: list[float] = []
    failed: list[str] = []

    def passes() -> None:
        try:
            if machine.is_simulated:
                _repeat()
            else:
                with machine.module.stream(machine.module.Stream(device=machine.device())):
                    _repeat()
        except Exception as error:  # noqa: BLE001 - told in the row
            failed.append(f"{type(error).__name__}: {str(error)[:200]}")

    def _repeat() -> None:
        for _ in range(10):
            with torch.no_grad():
                got = model(**inputs).logits.float().cpu()
            if not torch.equal(got, want):
                wrong.append(float((got - want).abs().max()))

    threads = [threading.Thread(target=passes) for _ in range(1 if machine.is_simulated else 2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    model.devmap.remove()
    return {
        "what": "two streams of the caller's",
        "wrong": len(wrong),
        "failed": failed,
        "ok": not wrong and not failed,
    }
