"""The GitHub action and the GitLab job.

Their scripts are taken out of the YAML and run by bash as the runners would.

The steps that install do so from the package registry, as they do in CI; each environment then holds no
torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from devmap.config.yaml.reader import read_yaml

ROOT = Path(__file__).parent.parent.parent
ACTION = ROOT / "validators" / "github" / "action.yml"
JOB = ROOT / "validators" / "gitlab" / "devmap.gitlab-ci.yml"
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def yaml_of(path: Path) -> dict[str, Any]:
    parsed = read_yaml(path.read_bytes(), path.name)
    assert parsed.data is not None, parsed.faults
    return parsed.data


@dataclass
class Ran:
    status: int
    log: str
    outputs: dict[str, str]


def expanded(text: str, values: dict[str, str]) -> str:
    """A text with its expressions.

    Names of contexts, and the first that is not empty of several joined by `||`.
    """

    def value(match: re.Match[str]) -> str:
        return next((found for name in match[1].split("||") if (found := values[name.strip()])), "")

    return _EXPRESSION.sub(value, text)


def run_step(name: str, values: dict[str, str], *, cwd: Path, temporary: Path) -> Ran:
    """One step of the action with bash as the runner calls it.

    `bash --noprofile --norc -eo pipefail FILE`.
    """
    step = next(step for step in yaml_of(ACTION)["runs"]["steps"] if step["id"] == name)
    assert step["shell"] == "bash"
    assert "${{" not in step["run"], "an expression in a script is a way to inject code"
    script, outputs = temporary / f"{name}.sh", temporary / f"{name}.outputs"
    script.write_text(step["run"], encoding="utf-8")
    outputs.write_text("", encoding="utf-8")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(temporary),
        "RUNNER_TEMP": str(temporary),
        "GITHUB_OUTPUT": str(outputs),
        **{
            key: value
            for key, value in os.environ.items()
            if key.startswith("PIP_") or key.lower().endswith("_proxy")
        },
        **{key: expanded(value, values) for key, value in step["env"].items()},
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment)
    found = dict(line.split("=", 1) for line in outputs.read_text(encoding="utf-8").splitlines())
    return Ran(result.returncode, result.stdout + result.stderr, found)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runner checks out for the action: a copy, as pip builds inside it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("devmap", "validators"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `devmap` that the action's own first step installed."""
    temporary = tmp_path_factory.mktemp("runner")
    values = {"github.action_path": str(checkout / "validators" / "github")}
    ran = run_step("install", values, cwd=temporary, temporary=temporary)
    assert ran.status == 0, f"the install step needs a package registry that pip reaches:\n{ran.log}"
    return Path(ran.outputs["devmap"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a good config and one with a misspelt layer, in a folder with a blank in its name."""
    for name in ("llama-3-70b.2xa100.devmap.yaml", "llama-3-70b.manifest.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    bad = tmp_path / "not so good"
    bad.mkdir()
    text = (tmp_path / "llama-3-70b.2xa100.devmap.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^device_map:.*$", "device_map: {model.layer.0: 0, '': balanced}", text)
    (bad / "bad.devmap.yaml").write_text(
        text.replace("llama-3-70b.manifest", "../llama-3-70b.manifest"), encoding="utf-8"
    )
    return tmp_path


def run_action(
    installed: Path, project: Path, tmp_path_factory: pytest.TempPathFactory, **inputs: str
) -> Ran:
    declared = {key: str(given.get("default", "")) for key, given in yaml_of(ACTION)["inputs"].items()}
    given = declared | {key.replace("_", "-"): value for key, value in inputs.items()}
    values = {f"inputs.{key}": value for key, value in given.items()} | {
        "steps.install.outputs.devmap": str(installed)
    }
    return run_step("validate", values, cwd=project, temporary=tmp_path_factory.mktemp("step"))


def test_the_environment_of_the_action_has_no_torch(installed: Path) -> None:
    listed = subprocess.run(
        [str(installed.parent / "python"), "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    names = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert "torch-devmap" in names
    assert "torch" not in names


def test_the_action_passes_a_good_config(
    installed: Path, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ran = run_action(installed, project, tmp_path_factory, paths="llama-3-70b.2xa100.devmap.yaml")
    assert (ran.status, ran.outputs) == (0, {"status": "0"}), ran.log
    assert "::error" not in ran.log


def test_the_action_annotates_a_bad_config_writes_sarif_and_fails(
    installed: Path, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ran = run_action(
        installed,
        project,
        tmp_path_factory,
        paths="not so good\nllama-3-70b.2xa100.devmap.yaml",
        sarif_file="out.sarif",
    )
    assert (ran.status, ran.outputs) == (1, {"status": "1"}), ran.log
    assert re.search(r"::error file=not so good/bad\.devmap\.yaml,line=\d+,.*title=DM201", ran.log)
    log = json.loads((project / "out.sarif").read_text(encoding="utf-8"))
    schema = json.loads(
        (ROOT / "tests" / "report" / "sarif-2.1.0-structure.json").read_text(encoding="utf-8")
    )
    Draft202012Validator(schema).validate(log)
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["DM201"]


def test_the_action_takes_options_and_a_devmap_that_is_there(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = Path(sys.executable).parent / "devmap"
    ran = run_action(
        Path("/nowhere"), project, tmp_path_factory, devmap=str(own), args="--ignore=DM2\n--locked"
    )
    assert "DM201" not in ran.log
    assert "DM505" in ran.log  # --locked: there is no lock


def test_the_action_says_that_it_could_not_run(
    installed: Path, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ran = run_action(installed, project, tmp_path_factory, paths="absent", sarif_file="out.sarif")
    assert (ran.status, ran.outputs) == (2, {"status": "2"})
    assert not (project / "out.sarif").exists()


def test_each_input_reaches_a_script_and_is_described() -> None:
    action = yaml_of(ACTION)
    text = ACTION.read_text(encoding="utf-8")
    for name, declared in action["inputs"].items():
        assert declared["description"]
        assert f"inputs.{name} " in text


def run_job(
    section: str, project: Path, *, python: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A section of the GitLab job as its runner does it.

    One bash, lines in order, the first failure ends it.
    """
    job = yaml_of(JOB)["devmap-validate"]
    environment = {
        "PATH": f"{python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(project),
        **{
            key: value
            for key, value in os.environ.items()
            if key.startswith("PIP_") or key.lower().endswith("_proxy")
        },
        **{key: str(value) for key, value in job["variables"].items()},
        **variables,
    }
    script = "\n".join(["set -eo pipefail", *job[section]])
    return subprocess.run(
        ["bash", "-c", script], check=False, capture_output=True, text=True, cwd=project, env=environment
    )


def test_the_gitlab_job_installs_checks_and_writes_the_code_quality_report(
    installed: Path, checkout: Path, project: Path
) -> None:
    prepared = run_job("before_script", project, python=installed, DEVMAP_PACKAGE=str(checkout))
    assert prepared.returncode == 0, prepared.stderr
    good = run_job("script", project, python=installed, DEVMAP_PATHS="llama-3-70b.2xa100.devmap.yaml")
    report = project / yaml_of(JOB)["devmap-validate"]["artifacts"]["reports"]["codequality"]
    assert (good.returncode, json.loads(report.read_text(encoding="utf-8"))) == (0, []), good.stderr
    bad = run_job("script", project, python=installed, DEVMAP_ARGS="--locked --ignore DM505")
    assert bad.returncode == 1, bad.stderr
    assert "DM201" in bad.stdout
    (entry,) = json.loads(report.read_text(encoding="utf-8"))
    assert (entry["check_name"], entry["location"]["path"]) == ("DM201", "not so good/bad.devmap.yaml")


LIGHT = (
    ("validate", "x.devmap.yaml"),
    ("plan", "x.devmap.yaml"),
    ("resolve", "x.devmap.yaml"),
    ("resolve", "x.devmap.yaml", "--lock"),
    ("diff", "x.devmap.yaml", "x.devmap.yaml"),
    ("inspect", "llama-3-70b.manifest.yaml"),
    ("rules",),
    ("explain", "DM201"),
    ("schema",),
)
HEAVY = (
    ("plan", "bare.devmap.yaml"),
    ("resolve", "bare.devmap.yaml"),
    ("diff", "bare.devmap.yaml", "bare.devmap.yaml"),
    ("doctor",),
    ("simulate", "x.devmap.yaml"),
    ("run", "x.devmap.yaml"),
)


@pytest.mark.parametrize("command", LIGHT, ids=" ".join)
def test_the_package_alone_runs_what_needs_no_torch(
    command: tuple[str, ...], installed: Path, project: Path
) -> None:
    shutil.copy(project / "llama-3-70b.2xa100.devmap.yaml", project / "x.devmap.yaml")
    ran = subprocess.run([str(installed), *command], check=False, capture_output=True, text=True, cwd=project)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("command", HEAVY, ids=" ".join)
def test_a_command_that_needs_torch_says_how_to_get_it(
    command: tuple[str, ...], installed: Path, project: Path
) -> None:
    text = (project / "llama-3-70b.2xa100.devmap.yaml").read_text(encoding="utf-8")
    (project / "x.devmap.yaml").write_text(text, encoding="utf-8")
    bare = "version: 1\nmodel: {manifest: llama-3-70b.manifest.yaml}\n"
    (project / "bare.devmap.yaml").write_text(bare, encoding="utf-8")
    ran = subprocess.run([str(installed), *command], check=False, capture_output=True, text=True, cwd=project)
    assert ran.returncode == 2, ran.stderr
    assert "error: this command needs torch, which is not installed" in ran.stderr
    assert "help: pip install 'torch-devmap[torch]'" in ran.stderr


@pytest.mark.parametrize(("schema", "path"), [("vendor.github-actions", ACTION), ("vendor.gitlab-ci", JOB)])
def test_the_templates_have_the_shape_that_their_hosts_publish(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
