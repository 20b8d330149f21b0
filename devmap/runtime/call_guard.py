"""Guards around the calls of modules that a run keeps state for, so that it is let go of however a call ends.

Torch calls the hooks of a module after an `Exception` too, but not after a `KeyboardInterrupt`, a
`SystemExit` or whatever else is no `Exception`: Ctrl-C in a notebook would leave the engine's lock taken and
its block bound. A guard stands where torch calls the module's hooks and forward, so that it holds for a
patched `forward` as well.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from devmap.runtime.streaming.engine import Engine

__all__ = ["Pass", "Passes", "guard"]

_MOST_NESTED = 8


@dataclass(eq=False, slots=True)
class Pass:
    """One call of the whole model, from the thread that made it."""

    started: float
    device: torch.device | None
    """Where its first input was: outputs go back there."""
    moved: dict[tuple[int, torch.device], tuple[torch.Tensor, int, torch.Tensor]] = field(
        default_factory=dict
    )
    """What was moved in it: by identity and device the tensor, its count of writes, and the copy."""


class Passes(threading.local):
    """The calls of one model that are under way in this thread, the outermost first."""

    def __init__(self) -> None:
        self._stack: list[Pass] = []

    @property
    def current(self) -> Pass | None:
        """The innermost of them."""
        return self._stack[-1] if self._stack else None

    def begin(self, started: Pass) -> None:
        """Begin a call. One that was interrupted may lie below for ever; it is dropped in the end."""
        del self._stack[: -_MOST_NESTED + 1]
        self._stack.append(started)

    def end(self) -> Pass | None:
        """Return the innermost call ends; None where none was under way."""
        return self._stack.pop() if self._stack else None

    @property
    def depth(self) -> int:
        """How many calls are under way."""
        return len(self._stack)

    def unwind(self, depth: int) -> None:
        """Forget the calls above a depth: they were interrupted."""
        del self._stack[depth:]


def guard(module: nn.Module, engine: Engine, passes: Passes) -> Callable[..., Any]:
    """Return what stands in for `module._call_impl`.

    The same call, which lets go of everything when it is interrupted.
    """
    call = type(module)._call_impl.__get__(module)  # noqa: SLF001 - where torch calls hooks and forward

    def guarded(*args: Any, **kwargs: Any) -> Any:
        depth, held = passes.depth, engine.held_by_this_thread()
        try:
            return call(*args, **kwargs)
        except Exception:
            raise  # the hooks have seen to it
        except BaseException:
            try:
                engine.unwind(held)
            finally:
                # A second interrupt may have come in the middle of it; what is done already is not done
                # again.
                engine.unwind(held)
                passes.unwind(depth)
            raise

    return guarded
