"""What a workload keeps on the stages of a pipeline: activations by the schedule, buffers of borders, logits.

The KV cache, gradients and optimizer states are those of the modules of a stage, for the whole batch. Beyond
them:

- Activations that training saves are those of the microbatches in flight: all M of a step under GPipe (Y.
  Huang et al., "GPipe", NeurIPS 2019), at most min(M, p - s) in stage s of p under 1F1B (D. Narayanan et al.,
  "PipeDream", SOSP 2019; "Memory-Efficient Pipeline-Parallel DNN Training", ICML 2021). Inference keeps the
  working set of one.
- A stage receives hidden states into buffers of its own: torch's schedules keep one for each microbatch of a
  step, in training one more for each gradient that comes back; our inference posts the next receive while it
  works on one, and so keeps two.
- The last stage makes the logits, which one machine's plan does not count: in inference one row in float32
  for each sequence, in training one for each token of a microbatch, and their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import Schedule, WorkloadKind
from devmap.inventory.dtypes import element_bits
from devmap.planning.problem.kv_cache import figure
from devmap.planning.problem.workload import WorkloadCharge, WorkloadCharges, charges, main_dtype, tokens_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.config.model.placement_config import Parallel, Workload
    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Inventory

__all__ = ["Borders", "StageCharges", "border_of", "in_flight", "stage_charges"]

_FLOAT32_BYTES = 4


def in_flight(parallel: Parallel, stage: int, stages: int, *, training: bool) -> int:
    """Return the microbatches whose activations a stage holds at once."""
    if not training:
        return 1
    if parallel.schedule is Schedule.GPIPE:
        return parallel.microbatches
    return min(parallel.microbatches, stages - stage)


@dataclass(frozen=True)
class Borders:
    """What passes from one stage to the next for one microbatch."""

    nbytes: int
    """In one step: a prefill in inference, a microbatch of whole sequences in training. 0 where it is
    unknown."""
    step_bytes: int
    """In the step that is timed: one token of each sequence where a model generates text."""
    arithmetic: str = ""


def border_of(
    workload: Workload | None, inventory: Inventory, *, dtype: str | None, microbatches: int, step_tokens: int
) -> Borders:
    """Return the hidden states that pass a border; `step_tokens` are those of a sequence in a timed step.

    A decoder's later stages also need what its encoder made.
    """
    architecture = inventory.architecture
    hidden = figure(architecture, "hidden_size", "d_model", "n_embd") if architecture else 0
    if not hidden or architecture is None:
        return Borders(0, 0)
    copies = 2 if architecture.figures.get("is_encoder_decoder") is True else 1
    size = element_bits(dtype or main_dtype(inventory)) // 8 * copies
    rows = -(-(1 if workload is None else workload.batch_size) // microbatches)
    length = 1 if workload is None else tokens_of(workload, architecture)
    words = f"{rows} x {length:,} tokens x {hidden:,} hidden x {size} bytes"
    return Borders(rows * length * hidden * size, rows * step_tokens * hidden * size, words)


@dataclass(frozen=True)
class StageCharges:
    """The charges of a workload, before and after it is known which stage holds what."""

    whole: WorkloadCharges
    """Of the whole batch, as on one machine."""
    micro: WorkloadCharges
    """Of one microbatch."""
    borders: Borders
    parallel: Parallel
    stages: int
    workload: Workload | None
    logits_bytes: int = 0
    logits_arithmetic: str = ""

    @property
    def training(self) -> bool:
        """Whether the stages train."""
        return self.workload is not None and self.workload.kind is WorkloadKind.TRAINING

    @property
    def activation_bytes(self) -> int:
        """The working set that each stage keeps free in inference."""
        return self.micro.activation_bytes

    def saved(self, stage: int) -> int:
        """Return how many microbatches' activations a stage holds."""
        return in_flight(self.parallel, stage, self.stages, training=self.training)

    def received_bytes(self, stage: int) -> tuple[int, str]:
        """Return the bytes of a stage's receive buffers, with the arithmetic."""
        if self.workload is None or not self.borders.nbytes:
            return 0, ""
        each = self.parallel.microbatches if self.training else 2
        sides = (stage > 0) + (self.training and stage < self.stages - 1)
        count = each * sides
        words = f"{count} x {format_bytes(self.borders.nbytes)} ({self.borders.arithmetic})"
        return count * self.borders.nbytes, words

    def made_bytes(self, stage: int) -> int:
        """Return the bytes of the logits that a stage makes."""
        return self.logits_bytes if stage == self.stages - 1 else 0

    def beside(self, stage: int) -> int:
        """Return what a stage keeps that no module of it causes: receive buffers and logits."""
        return self.received_bytes(stage)[0] + self.made_bytes(stage)

    def settled(self, members: Sequence[Sequence[int]]) -> WorkloadCharges:
        """Return the charges by atom, once `members` says which atoms each stage has."""
        stage_of = {at: stage for stage, own in enumerate(members) for at in own}
        found: list[WorkloadCharge] = []
        for charge, one in zip(self.whole.by_kind, self.micro.by_kind, strict=True):
            if charge.what != "activations":
                found.append(charge)
                continue
            by_atom = {at: nbytes * self.saved(stage_of[at]) for at, nbytes in one.by_atom.items()}
            words = f"{one.arithmetic}, for each microbatch in flight"
            found.append(replace(charge, by_atom=by_atom, arithmetic=words))
        received: dict[int, int] = {}
        words = ""
        for stage, own in enumerate(members):
            nbytes, arithmetic = self.received_bytes(stage)
            if nbytes:
                received[own[0]] = nbytes
                words = arithmetic
        if received:
            found.append(
                WorkloadCharge("receive buffers", received, words, follows_home=False, is_by_layer=False)
            )
        if self.logits_bytes:
            last = {members[-1][-1]: self.logits_bytes}
            found.append(
                WorkloadCharge("logits", last, self.logits_arithmetic, follows_home=False, is_by_layer=False)
            )
        return replace(
            self.whole,
            by_kind=tuple(found),
            activation_bytes=self.micro.activation_bytes,
            activation_arithmetic=self.micro.activation_arithmetic,
        )


def stage_charges(
    workload: Workload | None,
    inventory: Inventory,
    atoms: Sequence[Atom],
    parallel: Parallel,
    *,
    stages: int,
    dtype: str | None,
    step_tokens: int = 1,
) -> StageCharges:
    """Return what a workload keeps on the stages of a pipeline.

    Raises:
        DeviceMapError: when `trainable` names something that the model does not have.
    """
    whole = charges(workload, inventory, atoms, dtype=dtype)
    borders = border_of(
        workload, inventory, dtype=dtype, microbatches=parallel.microbatches, step_tokens=step_tokens
    )
    if workload is None:
        return StageCharges(whole, whole, borders, parallel, stages, None)
    rows = -(-workload.batch_size // parallel.microbatches)
    micro = charges(workload.model_copy(update={"batch_size": rows}), inventory, atoms, dtype=dtype)
    return StageCharges(
        whole, micro, borders, parallel, stages, workload, *_logits(workload, inventory, rows)
    )


def _logits(workload: Workload, inventory: Inventory, rows: int) -> tuple[int, str]:
    training = workload.kind is WorkloadKind.TRAINING
    architecture = inventory.architecture
    vocabulary = figure(architecture, "vocab_size") if architecture else 0
    if architecture is None or not vocabulary or not architecture.class_name.endswith(_MAKE_LOGITS):
        return 0, ""
    tokens = tokens_of(workload, architecture) if training else 1
    copies = 2 if training else 1
    nbytes = rows * tokens * vocabulary * _FLOAT32_BYTES * copies
    gradient = " x 2 for their gradient" if training else ""
    each = f"{tokens:,} tokens" if training else "1 token"
    return nbytes, f"{rows} x {each} x {vocabulary:,} words x {_FLOAT32_BYTES} bytes{gradient}"


_MAKE_LOGITS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")
