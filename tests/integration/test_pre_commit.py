"""The hook of `.pre-commit-hooks.yaml`, run by the real pre-commit in a scratch repository.

And what its environment needs.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devmap.config.yaml.reader import read_yaml
from devmap.config.yaml.writer import render_yaml

ROOT = Path(__file__).parent.parent.parent
MANIFEST = ROOT / ".pre-commit-hooks.yaml"
BIN = Path(sys.executable).parent
NEEDED = ("click", "jsonschema", "pydantic", "PyYAML")
"""What `devmap validate` imports of the distribution's dependencies; torch, safetensors and rich are the
others."""


def the_hook() -> dict[str, Any]:
    """The only hook of the manifest.

    Our reader wants a mapping at the root, so the list is put under a key.
    """
    listed = "".join(f"  {line}\n" for line in MANIFEST.read_text(encoding="utf-8").splitlines())
    parsed = read_yaml(f"hooks:\n{listed}".encode(), MANIFEST.name)
    assert parsed.data is not None, parsed.faults
    hooks = parsed.data["hooks"]
    assert isinstance(hooks, list)
    assert len(hooks) == 1
    assert isinstance(hooks[0], dict)
    return hooks[0]


def run(*command: str, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PRE_COMMIT_HOME": str(home / "pre-commit"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{
            f"GIT_{who}_{what}": f"{who}@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment)


def committed(folder: Path, home: Path) -> Path:
    """The folder as a git repository with everything in one commit."""
    for command in (
        ("git", "init", "--quiet"),
        ("git", "add", "--all"),
        ("git", "commit", "--quiet", "--message", "all"),
    ):
        result = run(*command, cwd=folder, home=home)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A repository with a good config, a lock and another YAML file, whose pre-commit has our hook.

    The hook is ours but for `language: system`, which takes devmap from this environment: no network in a
    test.
    """
    hook = {key: value for key, value in the_hook().items() if key != "additional_dependencies"} | {
        "language": "system"
    }
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    listed = render_yaml({"hooks": [hook]}).split("\n", 1)[1]
    (hooks / MANIFEST.name).write_text(listed, encoding="utf-8")
    committed(hooks, tmp_path)
    head = run("git", "rev-parse", "HEAD", cwd=hooks, home=tmp_path).stdout.strip()
    user = tmp_path / "user"
    user.mkdir()
    for name in (
        "llama-3-70b.2xa100.devmap.yaml",
        "llama-3-70b.2xa100.devmap.lock.yaml",
        "llama-3-70b.manifest.yaml",
    ):
        shutil.copy(ROOT / "examples" / name, user)
    config = f"repos:\n- repo: {hooks}\n  rev: {head}\n  hooks:\n  - id: devmap-validate\n"
    (user / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
    return committed(user, tmp_path)


def test_the_manifest_is_one_that_pre_commit_reads(tmp_path: Path) -> None:
    result = run("pre-commit", "validate-manifest", str(MANIFEST), cwd=ROOT, home=tmp_path)
    assert result.returncode == 0, result.stdout


def test_the_hook_passes_a_good_config_and_is_not_given_locks_and_manifests(
    scratch: Path, tmp_path: Path
) -> None:
    with (scratch / ".pre-commit-config.yaml").open("a", encoding="utf-8") as config:
        config.write("    args: [--format=text]\n")  # which says how many files it was given
    result = run("pre-commit", "run", "--all-files", "--verbose", cwd=scratch, home=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no problems in 1 file" in result.stdout


def test_the_hook_fails_a_commit_with_a_bad_config_and_says_where(scratch: Path, tmp_path: Path) -> None:
    assert run("pre-commit", "install", cwd=scratch, home=tmp_path).returncode == 0
    config = scratch / "llama-3-70b.2xa100.devmap.yaml"
    text = re.sub(
        r"(?m)^device_map:.*$",
        "device_map: {model.layer.0: 0, '': balanced}",
        config.read_text(encoding="utf-8"),
    )
    config.write_text(text, encoding="utf-8")
    result = run("git", "commit", "--all", "--message", "a misspelt layer", cwd=scratch, home=tmp_path)
    assert result.returncode == 1
    line = next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith("device_map:"))
    assert (
        f"{config.name}:{line}:14: error[DM201] 'model.layer.0' is not a module of this model"
        in result.stderr
    )
    assert run("git", "log", "--oneline", cwd=scratch, home=tmp_path).stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("x.devmap.yaml", True),
        ("a/b.devmap.yml", True),
        ("x.devmap.lock.yaml", False),
        ("x.manifest.yaml", False),
        ("devmap.yaml", False),
        ("x.devmap.yaml.orig", False),
    ],
)
def test_the_hook_takes_configs_alone(name: str, *, taken: bool) -> None:
    assert bool(re.search(the_hook()["files"], name)) is taken


def closure(names: tuple[str, ...]) -> set[str]:
    """The distributions that some distributions need, themselves included, on a Python of any version."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            requirements = [
                line for line in importlib.metadata.requires(name) or [] if "extra ==" not in line
            ]
            left += [re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0] for requirement in requirements]
    return found


def test_the_package_alone_is_what_validate_needs_and_no_torch() -> None:
    assert "additional_dependencies" not in the_hook()
    needed = {
        re.split(r"[<>=\[ ;]", line, maxsplit=1)[0].lower()
        for line in importlib.metadata.requires("torch-devmap") or []
        if "extra ==" not in line
    }
    assert {name.lower() for name in NEEDED} <= needed
    assert not needed & {"torch", "transformers", "safetensors", "numpy"}
    assert not closure(tuple(needed)) & {"torch", "transformers", "numpy"}


_WITHOUT_THE_REST = """
import importlib.abc, importlib.metadata, sys

allowed = {allowed!r}
homes = importlib.metadata.packages_distributions()

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        owners = {{owner.lower().replace("_", "-") for owner in homes.get(name.partition(".")[0], ())}}
        if owners and not owners & allowed:
            raise ModuleNotFoundError(f"not in the hook's environment: {{name}}")
        return None

sys.meta_path.insert(0, Absent())
from devmap.cli.main import cli
raise SystemExit(cli.main(["validate", "--format", "concise", *{paths!r}], standalone_mode=False))
"""


@pytest.mark.parametrize(("policies", "code"), [("", None), ("policies: [production]\n", "PRD")])
def test_validate_runs_where_nothing_else_is_installed(
    policies: str, code: str | None, tmp_path: Path, minilm_folder: Path
) -> None:
    config = tmp_path / "x.devmap.yaml"
    budgets = "max_memory: {0: 1GB, cpu: 1GB}\nheadroom: 20%\n"
    config.write_text(
        f"version: 1\nmodel: {{checkpoint: {minilm_folder}}}\n{budgets}{policies}", encoding="utf-8"
    )
    script = _WITHOUT_THE_REST.format(allowed=closure(NEEDED) | {"torch-devmap"}, paths=[str(config)])
    result = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert (result.returncode, result.stderr) == (int(code is not None), "")
    assert (code is None) == (result.stdout == "")
    assert (code or "") in result.stdout
