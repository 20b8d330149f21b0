"""Generation of a batch in several microbatches at once, so that no stage waits for all the others.

A token is chosen from the last stage's logits, and the first stage can only then begin with the next one. One
batch thus keeps one stage busy at a time. Divided into microbatches, each in a thread of its own on every
rank and over a process group of its own, another one is in each stage meanwhile; the parts of a stage run one
after the other. Within a microbatch all ranks make the same calls in the same order, as ever.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from devmap.distributed.values import Borders, Remote, crossing, swapped
from devmap.distributed.wire import Wire, another_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from devmap.distributed.parts import StageTensor

__all__ = ["Microbatches", "joined"]

_WHOLE = (
    "streamer",
    "stopping_criteria",
    "logits_processor",
    "prefix_allowed_tokens_fn",
    "return_dict_in_generate",
    "past_key_values",
    "prompt_lookup_num_tokens",
    "custom_generate",
)
"""Arguments that look at a batch as a whole, or at state that microbatches would share."""

_JOIN_SECONDS = 0.2


@dataclass(eq=False)
class Microbatches:
    """Generates in microbatches where that gives the same tokens."""

    model: nn.Module
    borders: Borders
    most: int
    """How many there are at once, where a batch has as many sequences."""
    outer: Sequence[StageTensor] = ()
    """The tensors of outer code, which all microbatches use."""
    _own: list[Borders] = field(default_factory=list)

    @property
    def wires(self) -> list[Wire]:
        """Those of the microbatches so far."""
        return [borders.wire for borders in self._own]

    def divided(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        """Return the arguments of each microbatch; one where the batch has to stay whole."""
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
        sizes = {len(each) if each.dim() else 0 for each in tensors}
        count = min(self.most, *sizes) if len(sizes) == 1 else 1
        if count < 2 or not self._can_divide(args, kwargs):
            return [(args, kwargs)]
        chunks = {id(each): each.chunk(count) for each in tensors}

        def microbatch(at: int) -> tuple[Any, dict[str, Any]]:
            found: tuple[Any, dict[str, Any]] = swapped(
                (args, kwargs), _is_tensor, lambda each: chunks[id(each)][at]
            )
            return found

        return [microbatch(at) for at in range(len(chunks[id(tensors[0])]))]

    def _can_divide(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        usual = getattr(self.model, "generation_config", None)
        config = kwargs.get("generation_config") or usual
        if any(kwargs.get(name) or getattr(config, name, None) for name in _WHOLE):
            return False
        # Drawn numbers come from one generator, in the order of the whole batch's sequences.
        asked = kwargs.get("do_sample")
        if asked if asked is not None else getattr(config, "do_sample", False):
            return False
        nested = [each for each in (*args, *kwargs.values()) if isinstance(each, dict | tuple | list)]
        keeps_positions = any(hasattr(module, "rope_deltas") for module in self.model.modules())
        return not keeps_positions and not any(_holds_tensor(each) for each in nested)

    def run(self, call: Callable[..., Any], divided: list[tuple[Any, dict[str, Any]]]) -> list[Any]:
        """Make the call for each microbatch; return what each gives. Collective.

        Raises:
            RankError: another rank failed meanwhile.
        """
        for place in self.outer:
            if isinstance(held := place.table[place.key], Remote):
                held.plain()
        while len(self._own) < len(divided):
            self._own.append(self._another())
        found: list[Any] = [None] * len(divided)
        errors: list[BaseException] = []

        def run(at: int) -> None:
            try:
                with crossing(self._own[at]), torch.inference_mode(mode=False), torch.no_grad():
                    args, kwargs = divided[at]
                    found[at] = call(*args, **kwargs)
                    self._own[at].wire.settle()
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that called
                errors.append(error)

        threads = [
            threading.Thread(target=run, args=(at,), name=f"devmap-microbatch-{at}", daemon=True)
            for at in range(len(divided))
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not errors:
            for thread in threads:
                thread.join(_JOIN_SECONDS)
            self.borders.wire.look()
        if errors:
            raise errors[0]
        return found

    def _another(self) -> Borders:
        return Borders(Wire.over(another_group(self.borders.wire.group)), self.borders.device)


def _is_tensor(obj: Any) -> bool:
    return isinstance(obj, torch.Tensor)


def _holds_tensor(obj: Any) -> bool:
    values = obj.values() if isinstance(obj, dict) else obj
    return any(
        _is_tensor(each) or (isinstance(each, dict | tuple | list) and _holds_tensor(each)) for each in values
    )


def joined(model: nn.Module, kwargs: dict[str, Any], found: list[torch.Tensor]) -> torch.Tensor:
    """Return the tokens of all microbatches; shorter ones end with the padding, as in one batch."""
    length = max(each.shape[1] for each in found)
    if all(each.shape[1] == length for each in found):
        return torch.cat(found)
    config = kwargs.get("generation_config") or getattr(model, "generation_config", None)
    filler = next(
        value
        for name in ("pad_token_id", "eos_token_id")
        for source in (kwargs.get(name), getattr(config, name, None))
        if (value := source[0] if isinstance(source, list) else source) is not None
    )
    return torch.cat([functional.pad(each, (0, length - each.shape[1]), value=filler) for each in found])
