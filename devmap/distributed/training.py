"""Training of a spread model, by torch's pipeline schedules.

Each rank's stage is a module for `torch.distributed.pipelining.PipelineStage`: what arrives from the stage
before are the values that this stage or a later one uses, what leaves are those that a later one uses. In
between runs the model's own outer code, with this stage's parts; it ends where all that leaves is there.

Which values cross which border is recorded in a pass without gradients, once for each shape of a batch, for
torch's schedules keep their receive buffers: with inputs of another shape they give old numbers, or end the
process. Torch's own inference of shapes would run the model with gradients, so shapes are always given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from devmap.distributed.calls import Arguments, Given, New
from devmap.distributed.values import Remote, swapped
from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.distributed.calls import PartCall
    from devmap.distributed.engine import Spread, Tie
    from devmap.distributed.parts import Part, StageTensor
    from devmap.distributed.values import Need

__all__ = ["StageTrainer"]

_SCHEDULES = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}


@dataclass(eq=False)
class StageTrainer:
    """Forward and backward passes over all stages of a spread model."""

    spread: Spread
    microbatches: int
    schedule: Literal["1f1b", "gpipe"] = "1f1b"
    _by_shape: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no schedule can run.

        Raises:
            UsageError: there are too few microbatches, or no such schedule.
        """
        if self.microbatches < 1 or self.schedule not in _SCHEDULES:
            raise UsageError(
                f"there is no training with {self.microbatches} microbatches by '{self.schedule}'",
                help="give at least one microbatch, and the schedule '1f1b' or 'gpipe'",
            )
        stages = self.spread.borders.wire.size
        if self.schedule == "1f1b" and self.microbatches < stages:
            raise UsageError(
                f"{self.microbatches} microbatches are fewer than {stages} stages, which 1f1b cannot run",
                help=f"give {stages} microbatches or more, or the schedule 'gpipe'",
            )

    def step(self, **batch: Any) -> float:
        """Run a batch forward and backward; return the loss. Gradients are added to this stage's parameters.

        Collective. The values are rank 0's; every rank returns the same loss: what the model gives for the
        whole batch, with each microbatch weighted by its labels.

        Args:
            batch: the model's arguments by name, with `labels`; tensors of shape `[batch, ...]`, where the
                batch is a multiple of the microbatches.

        Raises:
            UsageError: the batch cannot be divided, has no labels, or the model cannot be divided into these
                stages for training.
        """
        with self.spread.borders.wire.guard():
            return self._step(batch)

    def _step(self, batch: dict[str, Any]) -> float:
        wire = self.spread.borders.wire
        _, given = self.spread.root.of_rank_0((), batch)
        tensors = {name: each for name, each in given.items() if isinstance(each, torch.Tensor)}
        sizes = {len(each) for each in tensors.values()}
        if given.get("labels") is None:
            raise UsageError("a batch for training needs labels", help="give labels as the model takes them")
        if len(sizes) != 1 or next(iter(sizes)) % self.microbatches:
            raise UsageError(
                f"tensors of batch size {sorted(sizes)} cannot be divided into {self.microbatches} "
                "microbatches of one shape",
                help="give tensors of one batch size, a multiple of the microbatches",
            )
        key = tuple(
            (name, tuple(each.shape)) for name, each in given.items() if isinstance(each, torch.Tensor)
        )
        if key not in self._by_shape:
            self._by_shape[key] = self._scheduled(given)
        before = self._without_ties()
        losses: list[torch.Tensor] = []
        is_last = wire.rank == wire.size - 1
        if is_last:
            weights = _weights(self.spread.model, given["labels"], self.microbatches)
            self._by_shape[key].step(target=weights, losses=losses, return_outputs=False, **given)
        else:
            self._by_shape[key].step(return_outputs=False, **given)
        self._reduce_ties(before)
        total = float(sum(loss.detach() for loss in losses)) if is_last else None
        found: float = wire.from_one(total, wire.size - 1)
        return found

    def clip_gradients(self, most: float) -> float:
        """Scale the gradients of all stages so that their norm is at most `most`; return what it was.

        Collective. A tied parameter counts once.
        """
        again = {tie.names[self.spread.stage] for tie in self.spread.ties if self._is_copy(tie.names)}
        squares = sum(
            float(parameter.grad.detach().double().pow(2).sum())
            for name, parameter in self.spread.named_parameters()
            if parameter.grad is not None and name not in again
        )
        norm: float = float(sum(self.spread.borders.wire.from_all(squares))) ** 0.5
        if norm > most:
            for _, parameter in self.spread.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(most / norm)
        return norm

    def _is_copy(self, names: Mapping[int, str]) -> bool:
        return self.spread.stage in names and self.spread.stage != next(iter(names))

    def _tied(self) -> list[tuple[Tie, nn.Parameter]]:
        """Return the ties of which this stage has a copy, in the order of all ranks."""
        stage, parameters = self.spread.stage, dict(self.spread.named_parameters())
        return [(tie, parameters[tie.names[stage]]) for tie in self.spread.ties if stage in tie.names]

    def _without_ties(self) -> list[torch.Tensor | None]:
        """Take the gradients of ties away, which are those of all copies already; return them."""
        found = []
        for _, parameter in self._tied():
            found.append(parameter.grad)
            parameter.grad = None
        return found

    def _reduce_ties(self, before: Sequence[torch.Tensor | None]) -> None:
        """Add up the gradients of each tie's copies, at the first stage that has one, and hand them back."""
        wire, stage = self.spread.borders.wire, self.spread.stage
        for (tie, parameter), earlier in zip(self._tied(), before, strict=True):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            first, *others = tie.names
            shape, dtype = gradient.shape, gradient.dtype
            if stage == first:
                for other in others:
                    gradient = gradient + wire.receive(shape, dtype, other).to(gradient.device)
                wire.send(gradient, others)
            else:
                wire.send(gradient, [first])
                gradient = wire.receive(shape, dtype, first).to(gradient.device)
            parameter.grad = gradient if earlier is None else earlier + gradient
        wire.settle()

    def _scheduled(self, batch: Mapping[str, Any]) -> Any:
        """Record a pass of one microbatch, and make the schedule for its shapes. Collective."""
        spread = self.spread
        wire, stage = spread.borders.wire, spread.stage
        one = {
            name: each[: len(each) // self.microbatches] if isinstance(each, torch.Tensor) else each
            for name, each in batch.items()
        }
        recorded = _record(spread, one)
        stages = [_incoming(recorded.needs, recorded.made_by, index) for index in range(wire.size)]
        module = _StageModule(spread, recorded, stages[stage], (*stages, ())[stage + 1])
        leaving = _examples(recorded.needs, (*stages, ())[stage + 1], wire.device)
        pipeline_stage = PipelineStage(
            module,
            stage,
            wire.size,
            wire.device,
            input_args=_examples(recorded.needs, stages[stage], wire.device),
            output_args=leaving or (torch.empty(1, device=wire.device, requires_grad=True),),
            group=wire.group,
        )
        # Weights of microbatches are in the losses, so that gradients add up to those of the whole batch.
        return _SCHEDULES[self.schedule](
            pipeline_stage, self.microbatches, loss_fn=_weighted, scale_grads=False
        )


def _weighted(loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (loss * weight.to(loss.device)).sum()


def _weights(model: nn.Module, labels: torch.Tensor, microbatches: int) -> torch.Tensor:
    """Return the share of each microbatch in the batch's labels, of shape `[microbatches]`.

    A decoder alone predicts the next token, so the first label of a sequence is none of its loss.
    """
    shifted = labels.dim() > 1 and not getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    counted = (labels[:, 1:] if shifted else labels) != -100
    counts = torch.stack([part.sum() for part in counted.chunk(microbatches)]).double()
    return (counts / counts.sum()).float()


@dataclass(frozen=True)
class _Recorded:
    """A pass of one microbatch."""

    calls: Sequence[PartCall]
    needs: Mapping[int, Need]
    """What is used, by label."""
    made_by: Mapping[int, int]
    """The stage that has it first, by label."""


def _record(spread: Spread, batch: Mapping[str, Any]) -> _Recorded:
    """Run one microbatch without gradients, in eval mode, and note what each stage uses. Collective."""
    borders, calls, model = spread.borders, spread.calls, spread.model
    modes = [(module, module.training) for module in model.modules()]
    borders.labels, borders.needs, calls.trace = 0, {}, []
    try:
        model.eval()
        with torch.no_grad():
            output = spread.root.inner(**batch)
        loss = output.loss if hasattr(output, "loss") else output[0]
        if not isinstance(loss, Remote):
            raise UsageError(
                "the model gives no loss that its last stage could compute",
                help="give the labels that the model's forward takes",
            )
        borders.note(loss.value, 1 << borders.wire.size - 1)
        needs, trace = borders.needs, calls.trace
    finally:
        borders.needs, calls.trace = None, None
        for module, mode in modes:
            module.training = mode
    borders.wire.settle()
    made_by = {-1 - index: place.stage or 0 for index, place in enumerate(spread.parts.tensors)}
    for call in trace:
        if call.recorded.filled:
            raise UsageError(
                f"'{call.part.path}' hands tensors on in a dict, which cannot be trained over several stages",
                help="train this model on one machine",
            )
        for index in range(_count(call.recorded.output)):
            made_by[call.label + index] = call.part.stage
    for label, need in needs.items():
        if need.ranks & ((1 << made_by[label]) - 1):
            path = next((call.part.path for call in reversed(trace) if call.label <= label), "?")
            raise UsageError(
                f"a stage before stage {made_by[label]} uses what '{path}' of that stage gives, and a "
                "pipeline that is trained goes one way",
                help="give modules to stages in the order in which they run",
            )
    return _Recorded(trace, needs, made_by)


def _count(output: Any) -> int:
    found = 0

    def count(each: Any) -> Any:
        nonlocal found
        found += 1
        return each

    swapped(output, lambda each: isinstance(each, New), count)
    return found


def _incoming(needs: Mapping[int, Need], made_by: Mapping[int, int], stage: int) -> tuple[int, ...]:
    """Return the labels of what a stage gets from the one before: used here or later, made before."""
    return tuple(
        label for label, need in sorted(needs.items()) if made_by[label] < stage and need.ranks >> stage
    )


def _examples(
    needs: Mapping[int, Need], labels: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.empty(
            needs[label].shape,
            dtype=needs[label].dtype,
            device=device,
            requires_grad=needs[label].dtype.is_floating_point,
        )
        for label in labels
    )


class _AllThere(BaseException):
    """Ends a stage's pass: everything that leaves it is there. No error; code of models must not catch it."""


class _StageModule(nn.Module):
    """One stage for torch: what arrives in, what leaves out; the last gives the loss, of shape `[1]`."""

    def __init__(
        self, spread: Spread, recorded: _Recorded, arriving: Sequence[int], leaving: Sequence[int]
    ) -> None:
        super().__init__()
        self.__dict__["_spread"] = spread  # not a child: its parameters are the optimizer's business
        self._recorded = recorded
        self._arriving = tuple(arriving)
        self._leaving = tuple(leaving)

    def forward(self, *arrived: torch.Tensor, **batch: Any) -> Any:
        """Run this stage's parts, and the outer code around them."""
        spread: Spread = self.__dict__["_spread"]
        device = spread.borders.device
        values = {label: each.to(device) for label, each in zip(self._arriving, arrived, strict=True)}
        stage_pass = _StagePass(spread, self._recorded.calls, values, self._leaving)
        with _OwnTensors(spread, values):
            spread.calls.instead = stage_pass.call
            try:
                output = spread.root.inner(**batch)
            except _AllThere:
                output = None
            finally:
                spread.calls.instead = None
        wire_device = spread.borders.wire.device
        if not self._leaving:
            loss = output.loss if hasattr(output, "loss") else output[0]
            return loss.reshape(1).to(wire_device)
        return tuple(values[label].to(wire_device).contiguous() for label in self._leaving)


class _OwnTensors:
    """Puts tensors in the places of outer code's remotes: this stage's own, those that arrived, or none."""

    def __init__(self, spread: Spread, values: dict[int, torch.Tensor]) -> None:
        self._places: list[tuple[StageTensor, Remote]] = []
        for index, place in enumerate(spread.parts.tensors):
            held = place.table[place.key]
            if place.is_outer and isinstance(held, Remote):
                if place.stage == spread.stage:
                    assert held.value.real is not None
                    values[-1 - index] = held.value.real
                elif -1 - index not in values:
                    why = f"'{place.name}', which stage {place.stage} has"
                    values[-1 - index] = spread.borders.lost(held.shape, held.dtype, why, place.stage or 0)
                self._places.append((place, held))
        self._values = {
            place.name: values[-1 - spread.parts.tensors.index(place)] for place, _ in self._places
        }

    def __enter__(self) -> None:
        for place, _ in self._places:
            place.table[place.key] = self._values[place.name]

    def __exit__(self, *_: object) -> None:
        for place, held in self._places:
            place.table[place.key] = held


class _StagePass:
    """One microbatch's pass through this stage."""

    def __init__(
        self,
        spread: Spread,
        calls: Sequence[PartCall],
        values: dict[int, torch.Tensor],
        leaving: Sequence[int],
    ) -> None:
        self._spread = spread
        self._calls = calls
        self._values = values
        self._leaving = leaving
        self._next = 0

    def call(
        self, part: Part, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a part of this stage, or stand for one of another."""
        if self._leaving and all(label in self._values for label in self._leaving):
            raise _AllThere
        if self._next == len(self._calls) or self._calls[self._next].part is not part:
            raise UsageError(
                f"the model calls '{part.path}' where another part was called when the stages were recorded",
                help="the model's code must not branch on what differs between batches of one shape",
            )
        recorded = self._calls[self._next]
        self._next += 1
        label = recorded.label
        given = Arguments(args, kwargs)
        if part.stage != self._spread.stage:
            why = f"what '{part.path}' of stage {part.stage} gives"

            def made(each: Any) -> Any:
                nonlocal label
                if isinstance(each, Given):
                    return given.objects[each.index]
                label += 1
                known = self._values.get(label - 1)
                if known is not None:
                    return known
                return self._spread.borders.lost(each.shape, each.dtype, why, part.stage)

            return swapped(recorded.recorded.output, lambda each: isinstance(each, New | Given), made)

        def note(each: torch.Tensor) -> torch.Tensor:
            nonlocal label
            if all(each is not one for one in given.objects):
                self._values[label] = each
                label += 1
            return each

        output = inner(*args, **kwargs)
        swapped(output, lambda each: isinstance(each, torch.Tensor), note)
        return output
