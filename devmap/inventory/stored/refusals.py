"""Files and folders of other formats, refused by name with what to do.

Pickles, GGUF, diffusers pipelines, adapters of PEFT, Mistral's consolidated files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.config.regular_files import is_file, is_folder
from devmap.config.values.words import shown
from devmap.errors import CheckpointError
from devmap.inventory.stored.json_files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["INDEX", "refuse_consolidated", "refuse_file", "refuse_folder"]

INDEX = re.compile(r".*\.safetensors\.index(?:\.[\w-]+)?\.json\Z")
"""Names of the files that say which tensor stands in which file."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ADAPTER_CONFIG = "adapter_config.json"


def refuse_file(path: Path) -> None:
    """Refuse a file that is no safetensors by its name, or is an adapter.

    Raises:
        CheckpointError: for pickles, their index, GGUF, and the weights of a PEFT adapter.
    """
    if path.name.endswith((*_PICKLES, ".bin.index.json")):
        raise _pickle(path)
    if path.name.endswith(".gguf"):
        raise _gguf(path)
    if path.name.startswith("adapter_model") and is_file(path.parent / _ADAPTER_CONFIG):
        raise _adapter(path.parent)


def refuse_folder(folder: Path) -> None:
    """Refuse a folder that holds no weights of one model.

    Raises:
        CheckpointError: for a diffusers pipeline, a PEFT adapter, pickles or GGUF alone, a folder of
            sentence-transformers whose model stands in another, and a folder without weights.
    """
    if is_file(folder / "model_index.json") and not is_file(folder / "config.json"):
        raise _pipeline(folder)
    names = [path.name for path in folder.glob("*.safetensors")]
    if any(not name.startswith("adapter_model") for name in names) or any(
        INDEX.match(path.name) for path in folder.glob("*.json")
    ):
        return
    if names or is_file(folder / _ADAPTER_CONFIG):
        raise _adapter(folder)
    paths = _entries(folder)
    for suffixes, made in (((*_PICKLES, ".bin.index.json"), _pickle), ((".gguf",), _gguf)):
        found = [path for path in paths if path.name.endswith(suffixes) and is_file(path)]
        if found:
            raise made(min(found, key=lambda path: not path.name.startswith(("pytorch_model", "diffusion_"))))
    raise CheckpointError(f"'{folder}' holds no *.safetensors", help=_where_else(folder))


def refuse_consolidated(tensors: Iterable[str], config: Mapping[str, object], folder: Path) -> None:
    """Refuse the tensors of a file that only the vendor's own code can name.

    Raises:
        CheckpointError: when they have the names that Mistral's and Llama's own code gives them, or there is
            no `config.json` for a folder with `params.json`.
    """
    named = any(
        re.fullmatch(r"tok_embeddings\.weight|layers\.\d+\.attention\.wq\.\w+", name) for name in tensors
    )
    if named or (not config and is_file(folder / "params.json")):
        raise CheckpointError(
            f"'{folder}' holds the weights in the vendor's own format alone (consolidated.safetensors, with "
            "params.json in place of config.json)",
            help="fetch the files of the same model that Transformers reads: config.json and "
            "model-*.safetensors with their index",
        )


# What each format is, and how its weights become safetensors.


def _pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"'{path}' is a pickle, which runs code when it is read; devmap reads safetensors alone",
        help=f"convert it once: {_pickle_command(path)}",
    )


def _pickle_command(path: Path) -> str:
    """Return the command that makes safetensors of a pickle: by the library that wrote it, where it can."""
    config = read_json(path.parent / "config.json", []) if is_file(path.parent / "config.json") else {}
    names = config.get("architectures")
    library = class_name = ""
    if path.name.startswith("pytorch_model") and isinstance(names, list) and names:
        library, class_name = "transformers", str(names[0])
    elif path.name.startswith("diffusion_pytorch_model") and "_class_name" in config:
        library, class_name = "diffusers", str(config["_class_name"])
    if class_name.isidentifier():
        place, out = _quotable(path.parent, "IN"), _quotable(path.parent, "OUT", end="-safetensors")
        return (
            f'python -c "from {library} import {class_name} as M; '
            f'M.from_pretrained({place}).save_pretrained({out})"'
        )
    pattern = "*.bin" if path.name.endswith(".index.json") else path.name
    pattern = pattern if re.fullmatch(r"[\w.*-]+", pattern) else "*"
    return (
        'python -c "import pathlib, torch, safetensors.torch as s; [s.save_file({k: v.clone() for k, v in '
        "torch.load(f, map_location='cpu', weights_only=True).items()}, f.with_suffix('.safetensors')) "
        f"for f in pathlib.Path({_quotable(path.parent, 'IN')}).glob('{pattern}')]\""
    )


def _gguf(path: Path) -> CheckpointError:
    place, out = _quotable(path.parent, "IN"), _quotable(path.with_suffix(""), "OUT", end="-safetensors")
    name = path.name if re.fullmatch(r"[\w.-]+", path.name) else "FILE.gguf"
    return CheckpointError(
        f"'{path}' is a GGUF file, which holds weights in llama.cpp's blocks; devmap reads safetensors alone",
        help="fetch the safetensors of the same model, or convert it once, which needs the package gguf: "
        'python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained({place}, gguf_file='{name}').save_pretrained({out})\"",
    )


def _quotable(path: Path, otherwise: str, *, end: str = "") -> str:
    """Return a path in single quotes where it can stand in a command as it is, else a word for it."""
    return f"'{path}{end}'" if re.fullmatch(r"[\w./-]+", str(path)) else f"'{otherwise}'"


def _adapter(folder: Path) -> CheckpointError:
    config = read_json(folder / _ADAPTER_CONFIG, []) if is_file(folder / _ADAPTER_CONFIG) else {}
    base = config.get("base_model_name_or_path")
    named = f" of {shown(base)}" if isinstance(base, str) and base else ""
    return CheckpointError(
        f"'{folder}' is a PEFT adapter{named}, not a model: it holds what is added to its base",
        help=f"name {shown(base) if named else 'its base'} as model.checkpoint, and put the adapter on what "
        f"devmap loads: peft.PeftModel.from_pretrained(devmap.load(CONFIG), '{folder}')",
    )


def _pipeline(folder: Path) -> CheckpointError:
    index = read_json(folder / "model_index.json", [])
    name = index.get("_class_name")
    # Looked up among the names that are there: the index may hold what no path can, or one outside.
    beside = {path.name for path in _with_weights(folder)}
    parts = [
        f"'{folder / part}' ({classes[1]})"
        for part, classes in index.items()
        if isinstance(classes, list) and len(classes) == 2 and part in beside
    ]
    kind = f" ({name})" if isinstance(name, str) else ""
    listed = f": {', '.join(parts)}" if parts else ""
    return CheckpointError(
        f"'{folder}' is a diffusers pipeline of several models{kind}",
        help=f"name each of them under components, or the folder of one as model.checkpoint{listed}",
    )


def _where_else(folder: Path) -> str:
    """Return what to do about a folder without weights: name the one below it that has some."""
    below = _with_weights(folder)
    if is_file(folder / "modules.json") and below:
        return f"sentence-transformers keeps its model in a folder below: name '{below[0]}'"
    if below:
        return f"there are some in '{below[0]}'; name the folder that config.json and the weights are in"
    return "name the folder that config.json and the weights are in"


def _with_weights(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if is_folder(path) and any(path.glob("*.safetensors"))]


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, in the order of names.

    Raises:
        CheckpointError: when it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be listed: {error.strerror or error}", help="make the folder readable"
        ) from error
