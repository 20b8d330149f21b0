"""How weights are quantised while they are loaded: what a person writes under `model.quantization`.

The keys are those of Transformers' `BitsAndBytesConfig` and `TorchAoConfig`, and one of ours: `method`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from devmap.config.model.forms import Shape
from devmap.config.values.fields import DtypeName
from devmap.config.values.strategy import QuantizationMethod

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["QuantizationSettings"]


ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]+$")]


def _only_false(value: bool) -> bool:
    if value:
        raise _contradiction("a model that is quantised while it is loaded knows only false here")
    return value


def _computes(dtype: str) -> str:
    if dtype not in {"float16", "bfloat16", "float32"}:
        reason = f"4-bit layers compute in float16, bfloat16 or float32, not in {dtype}"
        raise PydanticCustomError("DM107", "{reason}", {"reason": reason})
    return dtype


OnlyFalse = Annotated[bool, AfterValidator(_only_false), Field(json_schema_extra={"const": False})]


class TorchAoKindFields(Shape):
    """The fields of one of torchao's classes."""

    group_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Of `Int4WeightOnlyConfig`: neighbours in a row of a weight that share a scale. Left out: 128."""

    set_inductor_config: bool = True
    """Whether torchao sets up torch's compiler for its kernels."""


class TorchAoKind(Shape):
    """One of torchao's classes, as `config.json` files have it."""

    type_: Literal["Int4WeightOnlyConfig", "Float8WeightOnlyConfig"] = Field(alias="_type")
    """The class: `Int4WeightOnlyConfig` or `Float8WeightOnlyConfig`."""

    version: int = Field(default=2, ge=2, le=2, alias="_version")
    """The version of the class: 2."""

    arguments: TorchAoKindFields = Field(default_factory=TorchAoKindFields.model_construct, alias="_data")
    """The class's fields."""

    @property
    def method(self) -> QuantizationMethod:
        """The word for it."""
        is_int4 = self.type_ == "Int4WeightOnlyConfig"
        return QuantizationMethod.INT4 if is_int4 else QuantizationMethod.FP8


class TorchAoKinds(Shape):
    """What torchao makes of the linear layers."""

    default: TorchAoKind
    """For all of them."""


class QuantizationSettings(Shape):
    """How weights are quantised while they are loaded: a word, or the fields of Transformers' config classes.

    Those are `BitsAndBytesConfig` and `TorchAoConfig`.
    """

    method: Annotated[QuantizationMethod, Field(strict=False)] | None = None
    """`nf4`, `fp4` and `int8` by bitsandbytes, `int4` and `fp8` by torchao. Left out: what the other keys
    say."""

    quant_method: Literal["bitsandbytes", "torchao"] | None = None
    """The library, where the mapping is one of a `config.json`."""

    load_in_4bit: bool = False
    """Whether bitsandbytes packs weights into 4 bits: what `method: nf4` or `fp4` says."""

    load_in_8bit: bool = False
    """Whether bitsandbytes makes 8-bit integers of weights: what `method: int8` says."""

    bnb_4bit_quant_type: Literal["fp4", "nf4"] | None = None
    """The kind of 4-bit numbers. Left out: `fp4`, or what `method` says."""

    bnb_4bit_compute_dtype: Annotated[DtypeName, AfterValidator(_computes)] | None = None
    """The dtype that 4-bit layers compute in. Left out: float32, as Transformers has it."""

    bnb_4bit_use_double_quant: bool = False
    """Whether the scales of 4-bit weights are quantised too, which saves about 0.4 bits a weight."""

    bnb_4bit_quant_storage: Literal["uint8", "int8", "float16", "bfloat16", "float32", "float64"] | None = (
        None
    )
    """The dtype that packed 4-bit numbers are stored as. Left out: `uint8`."""

    llm_int8_threshold: float = Field(default=6.0, ge=0)
    """Inputs above this are multiplied in 16 bits where weights are 8-bit integers."""

    llm_int8_skip_modules: list[ModuleName] | None = Field(default=None, examples=[["lm_head", "q_proj"]])
    """Modules that stay whole with bitsandbytes, by their paths' beginnings or ends. Left out: the head, and
    what is tied."""

    llm_int8_has_fp16_weight: OnlyFalse = False
    """Only false: 16-bit weights beside the integers would save nothing."""

    llm_int8_enable_fp32_cpu_offload: OnlyFalse = False
    """Only false: where a module lies does not change it; `llm_int8_skip_modules` keeps some whole."""

    quant_type: TorchAoKinds | None = Field(
        default=None, examples=[{"default": {"_type": "Float8WeightOnlyConfig"}}]
    )
    """What torchao makes of the linear layers: what `method: int4` or `fp8` says."""

    modules_to_not_convert: list[ModuleName] | None = Field(default=None, examples=[["lm_head"]])
    """Modules that stay whole with torchao, by their paths' beginnings or ends. Left out: the head, and what
    is tied."""

    @model_validator(mode="after")
    def _is_one_method(self) -> QuantizationSettings:
        """Refuse keys that contradict each other, and none that says how."""
        named = set(self._named())
        if len(named) != 1:
            raise _contradiction(
                f"these keys name {' and '.join(sorted(named))}; a model has one method"
                if named
                else f"no key says how: add 'method', one of {', '.join(QuantizationMethod)}"
            )
        (method,) = named
        if self.quant_method not in {None, method.library}:
            raise _contradiction(
                f"{method} is a method of {method.library}, and quant_method says {self.quant_method}"
            )
        foreign = sorted(key for key in self.model_fields_set if key.startswith(_OF_OTHERS[method.library]))
        if foreign:
            raise _contradiction(f"'{foreign[0]}' is no key of {method.library}, whose method {method} is")
        return self

    def _named(self) -> Iterator[QuantizationMethod]:
        """Yield the methods that the keys name, one for each key."""
        if self.method is not None:
            yield self.method
        if self.load_in_8bit:
            yield QuantizationMethod.INT8
        if self.quant_type is not None:
            yield self.quant_type.default.method
        packed = self.method in _PACKED
        if self.bnb_4bit_quant_type is not None and (self.load_in_4bit or packed):
            yield QuantizationMethod(self.bnb_4bit_quant_type)
        elif self.load_in_4bit and not packed:
            yield QuantizationMethod.FP4  # what Transformers takes where nothing is said

    @property
    def chosen(self) -> QuantizationMethod:
        """The method, whichever keys name it."""
        return next(self._named())

    @property
    def group_size(self) -> int:
        """Neighbours in a row that share a scale, where torchao packs 4-bit integers."""
        given = self.quant_type.default.arguments.group_size if self.quant_type is not None else None
        return given or 128

    @property
    def skipped(self) -> tuple[str, ...] | None:
        """The modules that are named to stay whole; None where none is named."""
        names = (
            self.llm_int8_skip_modules if self.modules_to_not_convert is None else self.modules_to_not_convert
        )
        return None if names is None else tuple(names)


_PACKED = {QuantizationMethod.NF4, QuantizationMethod.FP4}
_OF_OTHERS = {
    "bitsandbytes": ("quant_type", "modules_to_not_convert"),
    "torchao": ("bnb_", "llm_", "load_"),
}
"""How the keys begin that a library does not have."""


def _contradiction(reason: str) -> PydanticCustomError:
    return PydanticCustomError("DM106", "{reason}", {"reason": reason})
