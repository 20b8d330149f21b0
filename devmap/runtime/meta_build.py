"""A transformers model built on meta from its config.

With the buffers that are computed rather than loaded filled in.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from devmap.config.values.words import shown
from devmap.errors import InventoryError, LoadError
from devmap.inventory.live.other_libraries import constructor_of
from devmap.inventory.stored.checkpoint import Checkpoint
from devmap.inventory.stored.json_files import read_json
from devmap.inventory.table.libraries import class_of, library_of
from devmap.runtime.initial_values import fill_computed_buffers, parameters_to_meta
from devmap.runtime.storage.weights import torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike


__all__ = ["build_empty", "build_on_meta"]


def build_on_meta(
    source: Checkpoint | str | PathLike[str] | Mapping[str, Any], *, dtype: str | None = None
) -> nn.Module:
    """Return the model that a `config.json` describes.

    No weights, ties made, eval mode, computed buffers real.

    `source` is a checkpoint, its folder, its `config.json`, or the config's content; the class is the first
    of its `architectures`. `dtype` is torch's name of the dtype the model computes in where its code asks;
    left out, the config's.

    Raises:
        LoadError: without the library, or when it does not know the model.
    """
    content, folder = _read(source)
    if library_of(content) != "transformers":
        return _build_with_other_library(content, dtype)
    if find_spec("transformers") is None:
        raise LoadError(
            "building a model from its config needs transformers, which is not installed",
            help="pip install 'torch-devmap[transformers]', or build the module yourself and call "
            "devmap.dispatch",
        )
    transformers = import_module("transformers")
    _require_text(content)
    names = content.get("architectures") or []
    model_class = getattr(transformers, names[0], None) if names else None
    if model_class is None:
        raise LoadError(
            f"transformers has no class {shown(names[0] if names else '')} to build this model with",
            help="its config.json should name one under 'architectures'; or build the module yourself and "
            "call devmap.dispatch",
        )
    try:
        config = _config(transformers, model_class, content, folder)
        config.architectures = list(names)
        with torch.device("meta"), _creation_on_meta():
            # What AutoModel.from_config calls.
            model: nn.Module = model_class._from_config(config, dtype=_dtype(dtype, config))  # noqa: SLF001
        model.eval()
        parameters_to_meta(model)
        fill_computed_buffers(model)
    except LoadError:
        raise
    except Exception as error:
        # Anything may be raised here: it is the code of some hundred model classes that runs.
        reason = (str(error).strip() or "no reason was given").splitlines()[0]
        raise LoadError(
            f"transformers cannot build {names[0]} from its config.json: {type(error).__name__}: {reason}",
            help="compare the version that config.json names under "
            "'transformers_version' with the one that is "
            "installed; or build the module yourself and pass it as devmap.load(config, model=...)",
        ) from error
    if (
        folder is not None
        and (folder / "generation_config.json").is_file()
        and getattr(model, "can_generate", bool)()
    ):
        model.generation_config = _generation_config(transformers, folder)
    if folder is not None:
        config.name_or_path = str(folder)
    return model


def _build_with_other_library(content: Mapping[str, Any], dtype: str | None) -> nn.Module:
    """The model of diffusers or timm. diffusers computes its buffers in the dtype that is asked for."""
    before = torch.get_default_dtype()
    library = library_of(content)
    try:
        constructor = constructor_of(content)
        if dtype is not None and library == "diffusers":
            torch.set_default_dtype(_dtype(dtype, None))
        model = build_empty(constructor)
        assert isinstance(model, nn.Module)
        _compute_the_rest(model, constructor)
    except InventoryError as error:
        raise LoadError(error.message, help=error.help) from error
    except Exception as error:
        # Anything may be raised here, as above.
        reason = (str(error).strip() or "no reason was given").splitlines()[0]
        raise LoadError(
            f"{library} cannot build {class_of(content)} from its config.json: "
            f"{type(error).__name__}: {reason}",
            help="compare the version that saved the model with the one that is installed; or build the "
            "module yourself and pass it as devmap.load(config, model=...)",
        ) from error
    finally:
        torch.set_default_dtype(before)
    return model.eval() if dtype is None else model.eval().to(_dtype(dtype, None))


def _compute_the_rest(model: nn.Module, constructor: Callable[[], nn.Module]) -> None:
    """Take computed buffers that their code made on meta, where its parameters are, from a second module.

    Some classes of timm make masks on the device of a weight. The second module is whole for a moment, in
    host memory.
    """
    lacking = [
        (path, key)
        for path, module in model.named_modules()
        for key in module._non_persistent_buffers_set  # noqa: SLF001 - torch offers no public way to ask
        if (buffer := module._buffers.get(key)) is not None and buffer.is_meta  # noqa: SLF001 - as above
    ]
    if lacking:
        whole = constructor()
        for path, key in lacking:
            model.get_submodule(path).register_buffer(
                key, whole.get_submodule(path).get_buffer(key), persistent=False
            )


def _config(transformers: Any, model_class: Any, content: Mapping[str, Any], folder: Path | None) -> Any:
    """Return the config as `from_pretrained` reads it.

    Infinities decoded, a nested config found for its class.
    """
    config_class: Any = getattr(model_class, "config_class", None)
    if folder is not None and config_class is not None and (folder / "config.json").is_file():
        return config_class.from_pretrained(folder, local_files_only=True)
    known = {key: value for key, value in content.items() if key != "architectures"}
    if "model_type" in known:
        return transformers.AutoConfig.for_model(**known)
    return config_class(**known)


def _require_text(content: Mapping[str, Any]) -> None:
    """Refuse names of classes that are no text, which Transformers would only meet much later.

    Raises:
        LoadError: naming the key.
    """
    names, kind = content.get("architectures"), content.get("model_type")
    wrong = ""
    if names and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        wrong = f"'architectures' is {shown(names)}, expected a list of class names"
    elif kind is not None and not isinstance(kind, str):
        wrong = f"'model_type' is {shown(kind)}, expected a name such as llama"
    if wrong:
        raise LoadError(f"in config.json {wrong}", help="fetch the file again, or correct it")


def _generation_config(transformers: Any, folder: Path) -> Any:
    try:
        return transformers.GenerationConfig.from_pretrained(folder)
    except Exception as error:
        # Transformers raises what json, its own checks and the values themselves raise.
        reason = (str(error).strip() or "no reason was given").splitlines()[0]
        raise LoadError(
            f"'{folder / 'generation_config.json'}' cannot be used: {type(error).__name__}: {reason}",
            help="fetch the file again, correct it, or remove it: generation then begins from config.json",
        ) from error


def _creation_on_meta() -> AbstractContextManager[object]:
    """Return what transformers itself enters beside the meta device, in versions that have it."""
    initialization = import_module("transformers.initialization")
    made: Callable[[], AbstractContextManager[object]] = getattr(
        initialization, "meta_device_safe_creation_ops", nullcontext
    )
    return made()


def _read(source: Checkpoint | str | PathLike[str] | Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    if isinstance(source, Checkpoint):
        return dict(source.config), source.folder
    if isinstance(source, Mapping):
        return dict(source), None
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    damage: list[str] = []
    content = read_json(path, damage)
    if damage:
        raise LoadError(
            f"'{path.parent}': {damage[0]}", help="the checkpoint's folder should have a config.json"
        )
    return content, path.parent


def _dtype(asked: str | None, config: Any) -> torch.dtype:
    if asked is not None:
        found = torch_dtype(asked)
        if found is None:
            raise LoadError(f"'{asked}' is not a torch dtype", help="use a name such as bfloat16")
        return found
    own = getattr(config, "dtype", None)
    return own if isinstance(own, torch.dtype) else torch.float32


# A module built by a callable of the user's, its parameters on the meta device and its computed buffers real.


def build_empty(factory: Callable[[], object]) -> object:
    """Return what the factory makes, without memory for what a checkpoint holds. The factory is called once.

    Each parameter is moved to meta when it is registered, which is before modules fill it: no page of it is
    touched. Under torch's meta device the buffers that no checkpoint holds (rotary frequencies, masks) would
    have no values; here they are computed, and the others are moved to meta at the end.
    """
    with _parameters_on_meta():
        made = factory()
    if isinstance(made, nn.Module):
        _saved_buffers_to_meta(made)
    return made


def _saved_buffers_to_meta(model: nn.Module) -> None:
    """Move saved buffers to meta; a buffer under two names stays one tensor."""
    twins: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for key, buffer in module._buffers.items():  # noqa: SLF001 - torch has no public way to ask
            # As above.
            if buffer is not None and not buffer.is_meta and key not in module._non_persistent_buffers_set:  # noqa: SLF001
                if id(buffer) not in twins:
                    twins[id(buffer)] = buffer.to("meta")
                module._buffers[key] = twins[id(buffer)]  # noqa: SLF001 - as above


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Send every parameter that a module registers to meta.

    One that is registered twice stays one parameter.
    """
    register = nn.Module.register_parameter
    twins: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is None or parameter.is_meta:
            return
        known = twins.get(id(parameter))
        if known is None or known[0]() is not parameter:
            twin = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
            known = twins[id(parameter)] = (weakref.ref(parameter), twin)
        module._parameters[name] = known[1]  # noqa: SLF001 - registering it would check it anew

    # for the time of one factory
    nn.Module.register_parameter = register_on_meta  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
