"""The config: what a person writes in `*.devmap.yaml`.

pydantic checks the shape and parses each value once. Everything that has a meaning beyond one value is a rule
in `devmap_validators`. The docstring under a field is its help in editors, in `docs/` and in the JSON Schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from devmap.config.model.forms import Shape, ShortForm
from devmap.config.model.quantization_settings import QuantizationSettings
from devmap.config.values.fields import (
    AMOUNT_SCHEMA,
    DTYPE_SCHEMA,
    TARGET_SCHEMA,
    Amount,
    DeviceKey,
    DtypeName,
    FormatVersion,
    Latency,
    MapKey,
    NodeName,
    Rate,
    Size,
    Target,
)
from devmap.config.values.size import Bytes, Percent
from devmap.config.values.strategy import (
    Objective,
    Optimizer,
    QuantizationMethod,
    Residency,
    Schedule,
    Strategy,
    WorkloadKind,
)

if TYPE_CHECKING:
    from devmap.config.values.device import Device

__all__ = [
    "Headroom",
    "MachineDevice",
    "MachineProfile",
    "ModelSource",
    "Network",
    "NodeProfile",
    "OffloadSettings",
    "Parallel",
    "PlacementConfig",
    "Workload",
]


class ModelSource(Shape):
    """Where the model's description and weights come from.

    One of `checkpoint`, `manifest` or `factory` is enough.
    """

    checkpoint: str | None = Field(default=None, examples=["./llama-70b", "meta-llama/Llama-2-7b-hf"])
    """A folder or a file with safetensors weights and `config.json`, or a hub id that is in the local hub
    cache. Nothing is downloaded."""

    variant: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$", examples=["fp16"])
    """Which of several sets of weights in the checkpoint's folder is read: `fp16` means
    `model.fp16.safetensors`, or its shards. Left out: the files without such a part in their names."""

    manifest: str | None = Field(default=None, examples=["llama-70b.manifest.yaml"])
    """A file that `devmap inspect -o` wrote: the model's tensors without its weights, so that CI needs
    neither."""

    factory: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$",
        examples=["mypkg.models:build"],
    )
    """A callable that returns an `nn.Module`. It runs code, so every command refuses it without
    `--allow-code`."""

    dtype: DtypeName | None = None
    """The dtype that the model runs in. Left out: the dtype of each tensor in the checkpoint."""

    dequantize: bool = False
    """Whether quantised weights are loaded whole, in the model's dtype, and planned at that size: for methods
    whose kernels the machine lacks (FP8, MXFP4, compressed-tensors)."""

    quantization: (
        Annotated[QuantizationSettings, ShortForm("method", {"enum": [*QuantizationMethod]})] | None
    ) = None
    """How the weights of linear layers are quantised while they are loaded: `nf4`, `fp4`, `int8`, `int4`,
    `fp8`, or a mapping of the fields that Transformers' config class takes. The plan counts them packed."""


class Workload(Shape):
    """What the model will do, so that room is kept for it beside the weights."""

    kind: Annotated[WorkloadKind, Field(strict=False)] = WorkloadKind.INFERENCE
    """`inference` keeps room for the KV cache and activations; `training` for gradients and optimizer states
    too; `server` keeps device 0 light."""

    batch_size: int = Field(default=1, ge=1, le=1_000_000)
    """Sequences that run at once."""

    sequence_length: int | None = Field(default=None, ge=1, le=100_000_000)
    """Tokens of one sequence, prompt and answer together. Left out: 2,048, or the model's own limit where
    that is smaller."""

    kv_cache_dtype: DtypeName | None = None
    """The dtype of the KV cache. Left out: the dtype that the model runs in."""

    optimizer: Annotated[Optimizer, Field(strict=False)] | None = None
    """The optimizer of a training workload. Left out: `adamw`."""

    trainable: list[MapKey] | None = Field(default=None, examples=[["lm_head", "model.layers[60-79]"]])
    """Modules that are trained: paths, ranges or globs. Left out: all of them in training, none otherwise."""


class OffloadSettings(Shape):
    """How weights that do not stay on an accelerator are kept."""

    folder: str | None = Field(default=None, examples=["./offload"])
    """Where weights are written that have no safetensors file behind them. Naming it offers the disk as a
    tier."""

    buffers: bool = False
    """Whether buffers follow their module to cpu or disk. Otherwise they stay on the device that executes it.
    """

    host_memory: Size = Bytes(4_000_000_000)
    """Bytes of host memory that streaming and loading may use above the weights that stay on cpu."""


class MachineDevice(Shape):
    """One device of a machine: memory in bytes, rates in bytes or floating-point operations a second."""

    memory: Size
    """The device's whole memory."""

    flops: dict[DtypeName, float] | None = Field(
        default=None, examples=[{"bfloat16": 165e12}], json_schema_extra={"propertyNames": DTYPE_SCHEMA}
    )
    """Floating-point operations a second by dtype."""

    memory_bandwidth: float | None = Field(default=None, gt=0, examples=[1.0e12])
    """Bytes a second that kernels read from the device's own memory."""

    host_to_device: float | None = Field(default=None, gt=0, examples=[25.0e9])
    """Bytes a second from host memory to this device."""

    disk: float | None = Field(default=None, gt=0, examples=[3.5e9])
    """For `disk`: bytes a second of sequential reads."""


class Network(Shape):
    """The network between the nodes of a cluster, as one node sees it."""

    bandwidth: Rate | None = None
    """Bytes a second that a node sends to another: `50GB/s`, or as networks are sold, `400Gbit/s`."""

    latency: Latency = 0.0
    """Seconds from the start of a transfer until its first byte is there: `5us`."""


class NodeProfile(Shape):
    """One machine of a cluster."""

    name: str = ""
    """A preset such as `8xh100`, or a file that `devmap doctor` wrote."""

    devices: dict[DeviceKey, MachineDevice] = Field(default_factory=dict)
    """Accelerators by index, `cpu`, `disk`, as the node itself calls them. Empty where `name` says it all."""

    network: Network | None = None
    """This node's own network, where it is not that of the others."""


class MachineProfile(Shape):
    """A machine: its devices with memory and rates; or several, with the network between them."""

    name: str = ""
    """A preset such as `2x4090`, or a file that `devmap doctor` wrote; with `devices` or `nodes`, what
    messages call the machine."""

    devices: dict[DeviceKey, MachineDevice] = Field(default_factory=dict)
    """Accelerators by index, `cpu`, `disk`. Empty where `name` says it all."""

    nodes: dict[
        NodeName,
        Annotated[NodeProfile, ShortForm("name", {"type": "string", "examples": ["8xh100"]})],
    ] = Field(default_factory=dict, examples=[{"a": "8xh100", "b": "8xh100"}])
    """Several machines, by names of yours, in the order of the pipeline. A device is then called `a/0`,
    `b/cpu`; a key without a node stands for the device of that name on every node."""

    network: Network | None = None
    """The network between the nodes."""

    @model_validator(mode="before")
    @classmethod
    def _no_devices_beside_nodes(cls, values: object) -> object:
        """Refuse devices that no node has."""
        if isinstance(values, dict) and values.get("nodes") and "devices" in values:
            raise PydanticCustomError(
                "DM101", "{reason}", {"reason": "'devices' is not a key of a machine with 'nodes'"}
            )
        return values


class Parallel(Shape):
    """How a model is spread over the accelerators of several nodes."""

    pipeline: int | None = Field(default=None, ge=1, le=100_000)
    """Stages, one accelerator each, in the order of the nodes. Left out: one for each accelerator."""

    tensor: int = Field(default=1, ge=1, le=1024)
    """Accelerators that share one stage. Only 1 is planned and run."""

    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.ONE_F_ONE_B
    """In which order a stage works on microbatches in training: `gpipe` keeps the activations of all of them,
    `1f1b` those of as many as there are stages behind it."""

    microbatches: int = Field(default=1, ge=1, le=1_000_000)
    """Parts into which a batch is split, so that the stages work at the same time."""


class Headroom(Shape):
    """What is left free on each device, as a share of its budget or in bytes."""

    default: Amount | None = None
    """For every accelerator that `devices` does not name."""

    devices: dict[DeviceKey, Amount] = Field(default_factory=dict)
    """For single devices."""

    def of(self, device: Device) -> Bytes | Percent | None:
        """Return what the config says for one device; None where it is silent.

        A key without a node stands for the device of that name on every node.
        """
        for key in (device, device.on(None)):
            if key in self.devices:
                return self.devices[key]
        return self.default if device.is_accelerator else None


def _all_by_auto() -> dict[str, Device | Strategy]:
    return {"": Strategy.AUTO}


DeviceMapField = Annotated[
    dict[MapKey, Target],
    ShortForm("", TARGET_SCHEMA),
]


ComponentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class PlacementConfig(Shape):
    """Where the modules of a PyTorch model live: on accelerators, in CPU memory, on disk."""

    version: FormatVersion
    """The version of this format: 1."""

    model: ModelSource
    """Where the model's description and weights come from."""

    components: dict[ComponentName, ModelSource] = Field(
        default_factory=dict,
        examples=[
            {"text_encoder": {"checkpoint": "./flux/text_encoder"}, "vae": {"checkpoint": "./flux/vae"}}
        ],
    )
    """Several models in place of `model`, each with a source of its own, in the order in which they run. They
    are placed together: a path begins with the name of its component (`vae.decoder`)."""

    residency: Annotated[Residency, Field(strict=False)] = Residency.TOGETHER
    """Whether components are placed `together`, or share the devices `by turns`: the one that is called is
    loaded, and the one before it makes room. Each then has all of `max_memory`; those that wait are in their
    files."""

    device_map: DeviceMapField = Field(default_factory=_all_by_auto)
    """A strategy (`auto`, `sequential`, `balanced`, `balanced_low_0`, `fastest`), or a mapping from module
    paths, ranges (`model.layers[0-39]`) and globs (`model.layers.*.mlp`) to an accelerator's index, `cpu`,
    `disk`, a torch device, or a strategy for the rest of that subtree. The longest match wins; `""` stands
    for everything that no other key names."""

    max_memory: dict[DeviceKey, Amount] | None = Field(
        default=None, examples=[{"0": "20GB", "1": "20GB", "cpu": "100GB"}]
    )
    """Bytes that each device may hold, or a share of its memory. `cpu` and `disk` are used only when they
    stand here (the disk also when `offload.folder` is given). Left out: this machine's devices."""

    headroom: Annotated[Headroom, ShortForm("default", AMOUNT_SCHEMA, others="devices")] | None = Field(
        default=None, examples=["15%"]
    )
    """What stays free on each accelerator, or a mapping for single devices. Left out: 0% where `max_memory`
    is given in bytes, 15% otherwise."""

    no_split_module_classes: list[str] | None = Field(default=None, examples=[["LlamaDecoderLayer"]])
    """Classes of modules that are never spread over two devices. Left out: what the model's own code says."""

    workload: Annotated[Workload, ShortForm("kind", {"enum": [*WorkloadKind]})] | None = Field(
        default=None, examples=["inference"]
    )
    """What the model will do, so that room is kept beside the weights. Left out: weights only."""

    offload: OffloadSettings = Field(default_factory=OffloadSettings.model_construct)
    """How weights that do not stay on an accelerator are kept."""

    extends: str | None = Field(default=None, examples=["../base.devmap.yaml"])
    """One config to start from. Mappings are merged, and what stands here wins."""

    abstract: bool = False
    """Whether this file is there only for others to extend. It may then leave out what they say, `model` too;
    it is no config by itself."""

    profiles: dict[str, dict[str, Any]] = Field(
        default_factory=dict, examples=[{"laptop": {"max_memory": {"cpu": "12GB"}}}]
    )
    """Named changes to this config, picked with `--profile`."""

    policies: list[str] = Field(default_factory=list, examples=[["production"]])
    """Policy packs to check against: built-in names, or paths to packs of your own."""

    objective: Annotated[Objective, Field(strict=False)] = Objective.LATENCY
    """What `device_map: fastest` makes small: the time of one pass (`latency`) or of the slowest stage
    (`throughput`)."""

    machine: (
        Annotated[MachineProfile, ShortForm("name", {"type": "string", "examples": ["2x4090"]})] | None
    ) = None
    """The machine the model will run on: a preset, a file that `devmap doctor` wrote, or a mapping of memory
    and rates. With `nodes` several machines."""

    parallel: Parallel | None = None
    """How the model is spread over the nodes of `machine`. Left out: a stage for each accelerator, one
    microbatch."""

    same_device: list[list[MapKey]] = Field(
        default_factory=list, examples=[[["model.embed_tokens", "lm_head"]]]
    )
    """Groups of modules that must share a device."""

    forbid: dict[DeviceKey, list[MapKey]] = Field(
        default_factory=dict, examples=[{"disk": ["model.embed_tokens"]}]
    )
    """Modules that a device must not hold."""

    _folder: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="before")
    @classmethod
    def _no_model_beside_components(cls, values: object) -> object:
        """Let components stand without a model: an empty one takes its place."""
        if not isinstance(values, dict) or not values.get("components"):
            return values
        if "model" in values:
            raise PydanticCustomError(
                "DM101", "{reason}", {"reason": "'model' is not a key of a config with 'components'"}
            )
        return {**values, "model": {}}

    @property
    def folder(self) -> Path:
        """The folder that relative paths of this config start from."""
        return self._folder

    def placed_in(self, folder: Path) -> PlacementConfig:
        """Return the same config, with relative paths that start from `folder`."""
        copy = self.model_copy()
        copy._folder = folder  # noqa: SLF001 - our own private attribute on a copy
        return copy

    def of_component(self, name: str) -> PlacementConfig:
        """Return the config of one of its components alone, with the same budgets."""
        return self.model_copy(update={"model": self.components[name], "components": {}})

    @property
    def takes_turns(self) -> bool:
        """Whether it has components that share the devices by turns."""
        return bool(self.components) and self.residency is Residency.BY_TURNS

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """The sources of its components, or that of its one model."""
        return tuple(self.components.values()) or (self.model,)
