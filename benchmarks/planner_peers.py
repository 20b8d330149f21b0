"""The planners that are compared, behind one signature."""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import accelerate.utils as accelerate_planner
from transformers.integrations import accelerate as transformers_planner

import devmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from devmap.inventory.model import Inventory

    DeviceMap = Mapping[str, int | str]
    Budgets = Mapping[int | str, int]
    Planner = Callable[[nn.Module, Inventory, Budgets, Sequence[str], str], DeviceMap]

__all__ = ["PLANNERS", "bounded", "devmap_plan"]

logging.getLogger("accelerate").setLevel(logging.ERROR)
logging.getLogger("transformers").setLevel(logging.ERROR)


def devmap_plan(
    _: nn.Module, inventory: Inventory, budgets: Budgets, whole: Sequence[str], strategy: str
) -> DeviceMap:
    """devmap: `resolve` of a config."""
    written = {
        "version": 1,
        "model": {},
        "device_map": strategy,
        "max_memory": dict(budgets),
        "no_split_module_classes": list(whole),
    }
    return devmap.resolve(devmap.PlacementConfig.model_validate(written), inventory).device_map


def _accelerate_plan(
    model: nn.Module, _: Inventory, budgets: Budgets, whole: Sequence[str], strategy: str
) -> DeviceMap:
    """Accelerate: what `load_checkpoint_and_dispatch` does with a strategy."""
    memory = dict(budgets)
    if strategy != "sequential":
        memory = accelerate_planner.get_balanced_memory(
            model, memory, no_split_module_classes=list(whole), low_zero=strategy == "balanced_low_0"
        )
    return accelerate_planner.infer_auto_device_map(model, memory, no_split_module_classes=list(whole))  # type: ignore[no-any-return]


def _transformers_plan(
    model: nn.Module, _: Inventory, budgets: Budgets, whole: Sequence[str], strategy: str
) -> DeviceMap:
    """Transformers: what `from_pretrained` does with a strategy."""
    memory = dict(budgets)
    classes = set(whole)
    if strategy != "sequential":
        memory = transformers_planner.get_balanced_memory(
            model, memory, no_split_module_classes=classes, low_zero=strategy == "balanced_low_0"
        )
    return transformers_planner.infer_auto_device_map(model, memory, no_split_module_classes=classes)  # type: ignore[no-any-return]


PLANNERS: Mapping[str, Planner] = {
    "devmap": devmap_plan,
    "accelerate": _accelerate_plan,
    "transformers": _transformers_plan,
}


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer. Main thread only."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
