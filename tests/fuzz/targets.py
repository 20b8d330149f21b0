"""What is fuzzed: one function for each kind of file that strangers write.

From bytes to a result or a `DevmapError`.

Whatever else comes out of one is a find. Both drivers use them: hypothesis in `make test`, atheris by `make
fuzz`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.checks.fixing import fix
from devmap.api.checks.ignoring import add_ignores
from devmap.api.checks.validation import validate_text
from devmap.api.comparison import compare
from devmap.checking.settings import Settings, find_settings
from devmap.config.model.machine_file import parse_machine
from devmap.config.overrides import apply_override
from devmap.errors import DevmapError
from devmap.inventory.manifests.manifest import parse_manifest
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.lock import parse_lock
from devmap.report.formats.findings import FORMATS, render
from devmap.report.markdown import render_diff_markdown
from devmap.report.plan_diff import render_diff, render_diff_json
from devmap_validators.checks.linear_patterns import PatternError, Steps, TooCostlyError, compile_pattern
from devmap_validators.checks.policies import parse_policy
from devmap_validators.checks.policy_schemas import MOST_STEPS, CostlySchemaError, violations

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SEEDS", "TARGETS", "seeds_of"]

SEEDS = Path(__file__).parent / "seeds"
_EXAMPLES = Path(__file__).parents[2] / "examples"
_FAULTS = Path(__file__).parents[1] / "faults"
_MOST_BYTES = 1 << 20

_MANIFEST = """\
version: 1
modules: {"": Net, layers: ModuleList, "layers[0-3]": Block, head: Linear}
tensors: {"layers[0-3].weight": "float32[8, 8]", head.weight: "float32[8, 8]"}
no_split_module_classes: [Block]
"""
_INSTANCE = {
    "device_map": {"": 0, "layers.0": "cpu"},
    "max_memory": {"0": 10},
    "policies": ["a"],
    "model": {"dtype": None},
}


@cache
def _folder() -> Path:
    """A folder with what a fuzzed file may name; left to the system's cleaning of its temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="devmap-fuzz-"))
    (folder / ".git").mkdir()
    (folder / "m.manifest.yaml").write_text(_MANIFEST)
    (folder / "checkpoint").mkdir()
    return folder


def _config(content: bytes) -> None:
    result = validate_text(content, str(_folder() / "x.devmap.yaml"), settings=Settings(strict=True))
    for name in FORMATS:
        text = render(result.findings, name, files=result.files)
        assert all(
            letter.isprintable() or letter == "\n" or unicodedata.category(letter) == "Zs" for letter in text
        ), name
    assert not any(finding.code == "DM902" for finding in result.findings)


def _manifest(content: bytes) -> None:
    assert "" in parse_manifest(content, "m.manifest.yaml").modules


def _lock(content: bytes) -> None:
    assert parse_lock(content, "x.devmap.lock.yaml").expected_digest


def _policy(content: bytes) -> None:
    policy = parse_policy(content, "p.policy.yaml")
    for rule in policy.rules:
        with contextlib.suppress(CostlySchemaError):
            violations(rule.schema, _INSTANCE, Steps(MOST_STEPS))


def _machine(content: bytes) -> None:
    parse_machine(content, "machine.yaml")


def _settings(content: bytes) -> None:
    folder = _folder() / "settings"
    folder.mkdir(exist_ok=True)
    (folder / "devmap.toml").write_bytes(content)
    settings = find_settings(folder)
    settings.is_excluded("a/b.devmap.yaml")
    settings.ignored_in("a/b.devmap.yaml")


def _header(content: bytes) -> None:
    path = _folder() / "checkpoint" / "model.safetensors"
    path.write_bytes(content)
    try:
        read_headers(path)
    finally:
        path.unlink()


def _index(content: bytes) -> None:
    folder = _folder() / "indexed"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_bytes(content)
    read_headers(folder)


def _pipeline(content: bytes) -> None:
    folder = _folder() / "pipeline"
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_bytes(content)
    shutil.copy(SEEDS / "header" / "llama.safetensors", folder / "unet" / "model.safetensors")
    read_headers(folder)


def _file_names(content: bytes) -> None:
    """Read a folder with one small file for each line."""
    folder = Path(tempfile.mkdtemp(prefix="names-", dir=_folder()))
    try:
        for name in content.split(b"\n")[:_MOST_FILES]:
            with contextlib.suppress(OSError, ValueError):  # no file can have this name
                if b"/" not in name:
                    Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(_EMPTY)  # noqa: PTH118 - of bytes
        read_headers(folder)
    finally:
        shutil.rmtree(folder)


_MOST_FILES = 40
_EMPTY = (2).to_bytes(8, "little") + b"{}"


def _model_config(content: bytes) -> None:
    from devmap.inventory.reader import read_checkpoint  # noqa: PLC0415 - reads its tables

    folder = _folder() / "with-config"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    shutil.copy(SEEDS / "header" / "llama.safetensors", folder / "model.safetensors")
    read_checkpoint(folder)


def _fixes(content: bytes) -> None:
    folder = _folder() / "fixed"
    folder.mkdir(exist_ok=True)
    path = folder / "x.devmap.yaml"
    path.write_bytes(content)
    settings = Settings(strict=True)
    for change in fix(path, settings=settings).changes:
        assert path.read_bytes() == change.after
    assert not fix(path, settings=settings, write=False).changes
    add_ignores(path, "older", settings=settings)


def _plan_json(content: bytes) -> None:
    path = _folder() / "p.json"
    path.write_bytes(content)
    found = compare(str(path), str(path))
    assert found.is_empty
    for show in (render_diff, render_diff_markdown, render_diff_json):
        assert show(found)


def _override(content: bytes) -> None:
    for text in content.decode("utf-8", "replace").split("\n"):
        found, _ = apply_override({"max_memory": {"0": 10}, "device_map": "auto"}, {}, text)
        assert found


def _pattern(content: bytes) -> None:
    pattern, _, text = content.decode("utf-8", "replace").partition("\n")
    with contextlib.suppress(PatternError, TooCostlyError):
        compile_pattern(pattern[:500]).search(text[:500], Steps(MOST_STEPS))


def _guarded(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        with contextlib.suppress(DevmapError):  # that is what an error looks like
            target(content[:_MOST_BYTES])

    return run


TARGETS: dict[str, Callable[[bytes], None]] = {
    name: _guarded(target)
    for name, target in {
        "config": _config,
        "manifest": _manifest,
        "lock": _lock,
        "policy": _policy,
        "machine": _machine,
        "settings": _settings,
        "header": _header,
        "index": _index,
        "pipeline": _pipeline,
        "file_names": _file_names,
        "model_config": _model_config,
        "fixes": _fixes,
        "plan_json": _plan_json,
        "override": _override,
        "pattern": _pattern,
    }.items()
}


def seeds_of(target: str) -> list[bytes]:
    """The corpus of a target: what is kept in `seeds`, and the examples and faults of its kind."""
    files = sorted((SEEDS / target).glob("*"))
    if target in {"config", "fixes"}:
        files += sorted(_FAULTS.glob("*.devmap.yaml")) + sorted(_EXAMPLES.glob("*.devmap.yaml"))
    elif target == "manifest":
        files += [path for path in sorted(_EXAMPLES.glob("*.manifest.yaml")) if path.stat().st_size < 20_000]
    elif target == "lock":
        files += [path for path in sorted(_EXAMPLES.glob("*.lock.yaml")) if path.stat().st_size < 20_000]
    elif target == "policy":
        folder = Path(__file__).parents[2] / "validators" / "devmap_validators" / "policies"
        files += sorted(folder.glob("*.yaml"))
    return [path.read_bytes() for path in files if path.is_file()]
