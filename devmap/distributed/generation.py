"""Calls of a whole model that runs over several ranks: `forward` and `generate`, with rank 0's inputs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from devmap.distributed.caches import caches_in
from devmap.distributed.microbatches import joined
from devmap.distributed.values import remote_of, swapped
from devmap.errors import UsageError
from devmap.runtime.inputs import Moves, first_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from devmap.distributed.microbatches import Microbatches
    from devmap.distributed.values import Borders

__all__ = ["RootCalls"]

_REFUSED = {
    "output_attentions": "attention weights stay inside the blocks that compute them",
    "output_hidden_states": "hidden states go from stage to stage, not to every rank",
    "output_router_logits": "what the routers give stays inside the blocks that compute it",
    "assistant_model": "a second model beside the stages would have to be on every rank",
}
"""What cannot be right when a model runs over several ranks, and why."""

_CPU = torch.device("cpu")
_PLAIN = (torch.Tensor, bool, int, float, str, type(None))


class RootCalls:
    """Stands where a spread model is called."""

    def __init__(self, model: nn.Module, borders: Borders, microbatches: Microbatches) -> None:
        self.model = model
        self.borders = borders
        self.microbatches = microbatches
        self.inner: Callable[..., Any] = model._call_impl  # noqa: SLF001 - where torch calls hooks
        """The model's own call."""
        self._depth = 0
        """How many calls of `generate` or `forward` are under way."""

    def install(self) -> list[tuple[nn.Module, str]]:
        """Stand in for the model's call and its `generate`; return the attributes that were set."""
        model = self.model
        model.__dict__["_call_impl"] = self._forward(self.inner)
        changed = [(model, "_call_impl")]
        generate = getattr(model, "generate", None)
        if generate is not None:
            model.__dict__["generate"] = self._generate(generate)
            changed.append((model, "generate"))
        return changed

    def _forward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            refuse(self.model, kwargs)
            if self._depth:
                output = call(*args, **kwargs)
                # `generate` chooses tokens from these. What else it is given it hands back to the model, so
                # that only the ranks that use it need it.
                if (logits := getattr(output, "logits", None)) is not None:
                    output.logits = _plain(logits)
                return output
            if self.model.training:
                raise UsageError(
                    "this model is spread over several processes for inference, and it is in training mode",
                    help="call model.eval() first; a devmap.distributed.training.StageTrainer trains it",
                )
            return self._run(call, args, kwargs)

        return run

    def _generate(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            refuse(self.model, kwargs)
            self._share_random_state()
            return self._run(functools.partial(self._in_microbatches, call), args, kwargs)

        return run

    def _in_microbatches(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        divided = self.microbatches.divided(args, kwargs)
        if len(divided) == 1:
            return call(*args, **kwargs)
        return joined(self.model, kwargs, self.microbatches.run(call, divided))

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        came_from = first_device(args, kwargs)
        self._depth += 1
        try:
            # In inference mode torch does not count writes, which show here what a part changes in place.
            with self.borders.wire.guard(), torch.inference_mode(mode=False), torch.no_grad():
                args, kwargs = self.of_rank_0(args, kwargs)
                output = _plain(call(*args, **kwargs))
        finally:
            self._depth -= 1
        self.borders.wire.settle()
        return output if came_from is None else Moves().output(output, came_from)

    def _share_random_state(self) -> None:
        """Let every rank draw the numbers that rank 0 is about to draw."""
        device = self.borders.device
        on_device = device.type not in {"cpu", "sim"}  # simulated devices draw from the CPU's generator
        module = torch.get_device_module(device) if on_device else None
        mine = (torch.get_rng_state(), module.get_rng_state(device) if module is not None else None)
        state, of_device = self.borders.wire.from_one(mine, 0)
        torch.set_rng_state(state)
        if module is not None and of_device is not None:
            module.set_rng_state(of_device, device)

    def of_rank_0(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return rank 0's tensors, numbers and words; objects of other kinds are each rank's own.

        Raises:
            UsageError: when the ranks give arguments of different names or structure.
        """
        leaves, spec = tree_flatten((args, kwargs), is_leaf=lambda each: bool(caches_in(each)))
        is_first = self.borders.wire.rank == 0
        mine = [_on(each, _CPU) if is_first and _is_shared(each) else None for each in leaves]
        all_mine = self.borders.wire.from_all((str(spec), mine))
        theirs, values = all_mine[0]
        for rank, (other, _) in enumerate(all_mine):
            if other != theirs:
                raise UsageError(
                    f"ranks 0 and {rank} call the model with different arguments",
                    help="give every rank the same arguments; the values are rank 0's",
                )
        given = [
            _on(values[index], self.borders.device) if _is_shared(each) else each
            for index, each in enumerate(leaves)
        ]
        args, kwargs = tree_unflatten(given, spec)
        return args, kwargs


def refuse(model: nn.Module, kwargs: Mapping[str, Any]) -> None:
    """Refuse what would be wrong or absent when a model runs over several ranks.

    Raises:
        UsageError: naming the argument, and why.
    """
    config = getattr(model, "config", None)
    generation = kwargs.get("generation_config") or getattr(model, "generation_config", None)
    for name, why in _REFUSED.items():
        asked = kwargs.get(name)
        if asked is None:
            asked = getattr(generation, name, None) or getattr(config, name, None)
        if asked:
            raise UsageError(
                f"{name} cannot be given by a model that is spread over several processes: {why}",
                help=f"leave {name} out, or run the model in one process",
            )


def _on(obj: Any, device: torch.device) -> Any:
    return obj.to(device) if isinstance(obj, torch.Tensor) else obj


def _on_host(value: Any) -> Any:
    """Return a tensor in host memory, since other ranks may not have its device; other values as they are."""
    return value.cpu() if isinstance(value, torch.Tensor) else value


def _is_shared(obj: Any) -> bool:
    return isinstance(obj, _PLAIN) and not remote_of(obj)


def _plain(found: Any) -> Any:
    return swapped(found, remote_of, lambda each: each.plain())
