"""Build the wheel and the source archive, and try the wheel where nothing of the checkout can help it.

`make package` calls it. Needs `build` and a package index for the few small requirements; no torch: checking
configs has to work without it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path
from shutil import copy, rmtree

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"

IN_THE_WHEEL = (
    "devmap/py.typed",
    "devmap/report/page/page.css",
    "devmap/report/page/page.js",
    "devmap/inventory/architectures/",
    "devmap_validators/py.typed",
    "devmap_validators/policies/production.yaml",
    "devmap_validators/example.manifest.yaml",
)
IN_THE_ARCHIVE = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "devmap/__init__.py",
    "validators/devmap_validators/__init__.py",
)
NOT_INSTALLED = ("tests/", "schema/", "validators/", "scripts/", "examples/", "benchmarks/", "docs/")
"""Top-level names that belong to others on a package index, or to nobody."""

_NEEDS_TORCH = """
import devmap
try:
    devmap.load
except ModuleNotFoundError as error:
    assert "pip install 'torch-devmap[torch]'" in str(error), error
else:
    raise SystemExit("torch came along with the wheel")
"""

TRIED = (
    ("devmap", "--version"),
    ("devmap", "rules"),
    ("devmap", "explain", "DM201"),
    ("devmap", "validate", "."),
    ("devmap", "plan", "llama-3-70b.2x4090.devmap.yaml"),
    ("devmap", "plan", "llama-3-70b.2x4090.devmap.yaml", "--html", "plan.html"),
    (
        "devmap",
        "diff",
        "llama-3-70b.2x4090.devmap.yaml",
        "llama-3-70b.fastest.devmap.yaml",
        "--format",
        "markdown",
    ),
    ("devmap", "schema"),
    ("python", "-m", "devmap", "inspect", "llama-3-70b.manifest.yaml"),
    ("python", "-c", "import devmap; print(devmap.validate, devmap.resolve, devmap.infer_auto_device_map)"),
    ("python", "-c", _NEEDS_TORCH),
)


def main() -> int:
    """Build, look inside, install, try; return 0 where all is as it should be."""
    rmtree(DIST, ignore_errors=True)
    # What an earlier build left would be packed again: setuptools collects from build/ whatever is there.
    rmtree(ROOT / "build", ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    (wheel,) = DIST.glob("*.whl")
    (archive,) = DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(archive))
    problems = [*wheel_problems(wheel), *archive_problems(archive)]
    for problem in problems:
        print(f"error: {problem}")
    if problems:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        try_wheel(wheel, Path(folder))
    print(f"{wheel.name} ({wheel.stat().st_size:,} bytes) and {archive.name} are right")
    return 0


def wheel_problems(wheel: Path) -> list[str]:
    """What is missing from a wheel, and what does not belong there."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    missing = [
        f"{wheel.name} lacks {want}"
        for want in IN_THE_WHEEL
        if not any(one.startswith(want) for one in names)
    ]
    stray = [f"{wheel.name} installs {one}" for one in names if one.startswith(NOT_INSTALLED)]
    roots = {one.partition("/")[0] for one in names}
    own = {"devmap", "devmap_validators"}
    stray += [f"{wheel.name} installs {one}" for one in sorted(roots - own) if not one.endswith(".dist-info")]
    return missing + stray


def archive_problems(archive: Path) -> list[str]:
    """What is missing from a source archive to build the wheel from it."""
    with tarfile.open(archive) as opened:
        names = {one.partition("/")[2] for one in opened.getnames()}
    return [f"{archive.name} lacks {want}" for want in IN_THE_ARCHIVE if want not in names]


def try_wheel(wheel: Path, folder: Path) -> None:
    """Install a wheel into a new environment, and call it in a folder that holds configs alone."""
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    run(str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    work = folder / "work"
    work.mkdir()
    for example in (ROOT / "examples").glob("llama-3-70b.*"):
        copy(example, work)
    for program, *arguments in TRIED:
        run(str(programs / program), *arguments, cwd=work)
    if "<!doctype html>" not in (work / "plan.html").read_text(encoding="utf-8"):
        sys.exit("error: the wheel's devmap wrote no page")


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command, and stop with what it said where it fails."""
    outcome = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if outcome.returncode:
        sys.exit(
            f"error: {' '.join(command)} ended with {outcome.returncode}\n{outcome.stdout}{outcome.stderr}"
        )
    shown = " ".join((Path(command[0]).name, *command[1:]))
    print(f"ok: {shown.strip().splitlines()[0]}")


if __name__ == "__main__":
    sys.exit(main())
