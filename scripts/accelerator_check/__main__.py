"""Prove the runtime on this machine's accelerators: one command, no network, at most six minutes.

Usage: python scripts/accelerator_check [--simulated] [--out FOLDER] [--only a,b,c,e] [--minutes 6]
       python scripts/accelerator_check --fetch-wheels FOLDER [--python 3.12]     (where there is a network)

Each section runs in a process of its own with a time limit, so that a hang or a device error costs only
itself. What has been found so far is written after every row: `accelerator_check.json` and
`accelerator_check.txt`, in the folder `--out`, else `$OUT`, else here. A folder `wheels` beside this script
is used for what the machine lacks.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SECTIONS = {
    # Name: module, what it shows, share of the time.
    "a": ("correct", "placed models compute what the resident model computes", 0.38),
    "b": ("truth", "bytes planned and simulated against bytes allocated", 0.14),
    "c": ("speed", "passes against the bound and the peers; d: what doctor measures and predicts", 0.36),
    "e": ("compiled", "torch.compile, graphs, two streams", 0.12),
}
NEEDED = ("click", "jsonschema", "pydantic", "yaml", "rich", "safetensors")
WHEELS = ("click", "jsonschema", "pydantic", "PyYAML", "rich", "safetensors")


def main() -> int:
    """Run the sections, or fetch wheels; 0 when every row is as it should be."""
    asked = _arguments()
    if asked.fetch_wheels:
        return _fetch_wheels(asked.fetch_wheels, asked.python)
    if asked.section:
        return _section(asked.section, Path(asked.scratch), simulated=asked.simulated)
    out = Path(asked.out or os.environ.get("OUT") or ".")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="accelerator-check-", dir=os.environ.get("TMPDIR")) as scratch:
        return _run_all(asked, out, Path(scratch))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--simulated", action="store_true", help="rehearse on simulated devices, with small models"
    )
    parser.add_argument("--out", help="folder for the JSON and the table")
    parser.add_argument("--only", default=",".join(SECTIONS), help="letters of the sections to run")
    parser.add_argument("--minutes", type=float, default=6.0, help="limit for all sections together")
    parser.add_argument(
        "--fetch-wheels", metavar="FOLDER", help="download what such a machine may lack, and stop"
    )
    parser.add_argument("--python", default="3.12", help="the Python version that the wheels are for")
    parser.add_argument(
        "--least-seconds", type=float, default=20.0, help="what a section gets however late it is"
    )
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_all(asked: argparse.Namespace, out: Path, scratch: Path) -> int:
    environment = _environment(scratch)
    started = time.monotonic()
    report: dict[str, object] = {"started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "rows": []}
    rows: list[dict[str, object]] = []
    for letter in asked.only.split(","):
        _, _, share = SECTIONS[letter]
        left = asked.minutes * 60 - (time.monotonic() - started)
        # A section that ends early leaves its time to those that follow.
        rest = sum(SECTIONS[each][2] for each in asked.only.split(",") if each >= letter)
        limit = max(asked.least_seconds, left * share / rest)
        rows += _in_a_process(letter, asked, scratch, environment, limit)
        report["rows"] = rows
        report["seconds"] = round(time.monotonic() - started, 1)
        _write(report, out)
    print((out / "accelerator_check.txt").read_text(encoding="utf-8"))
    return 0 if rows and all(row.get("ok") for row in rows) else 1


def _in_a_process(
    letter: str, asked: argparse.Namespace, scratch: Path, environment: dict[str, str], limit: float
) -> list[dict[str, object]]:
    command = [sys.executable, str(HERE), "--section", letter, "--scratch", str(scratch)]
    command += ["--simulated"] if asked.simulated else []
    log = scratch / f"section-{letter}.log"
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            output, _ = process.communicate(timeout=limit)
            ended = "" if process.returncode == 0 else f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            ended = f"stopped after {limit:g} s"
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if ended:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-12:]
        rows.append(
            {"section": letter, "what": "the section itself", "ok": False, "ended": ended, "log": last}
        )
    for row in rows:
        row.setdefault("section", letter)
    print(f"section {letter}: {len(rows)} rows in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows


def _environment(scratch: Path) -> dict[str, str]:
    """Return an environment in which devmap and what it needs can be imported, without a network."""
    paths = [str(ROOT), str(ROOT / "validators")]
    probe = "; ".join(f"import {name}" for name in NEEDED)
    if subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode != 0:
        wheels = HERE / "wheels"
        if not wheels.is_dir():
            raise SystemExit(
                f"one of {', '.join(NEEDED)} is missing here, and there is no folder {wheels}; "
                f"make it where there is a network: python {HERE.name} "
                f"--fetch-wheels {wheels}"
            )
        target = scratch / "packages"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-index",
                "--no-deps",
                "--find-links",
                str(wheels),
                "--target",
                str(target),
                *(str(each) for each in sorted(wheels.glob("*.whl"))),
            ],
            check=True,
        )
        paths.append(
            str(target)
        )  # behind the machine's own packages in sys.path? PYTHONPATH stands before them
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment


def _section(letter: str, scratch: Path, *, simulated: bool) -> int:
    """Run one section here and print a line of JSON for each row as soon as it is known."""
    # Imported here alone: the parent process sets up the path on which torch and devmap are found.
    from machine import on_machine, versions  # noqa: PLC0415

    with on_machine(simulated=simulated) as machine:
        if letter == "a":
            print(
                json.dumps({"what": "machine", "ok": True, **machine.describe(), "versions": versions()}),
                flush=True,
            )
        for row in importlib.import_module(SECTIONS[letter][0]).run(machine, scratch):
            print(json.dumps({"section": letter, **row}, default=str), flush=True)
    return 0


def _write(report: dict[str, object], out: Path) -> None:
    (out / "accelerator_check.json").write_text(json.dumps(report, indent=1, default=str), encoding="utf-8")
    rows = report["rows"]
    assert isinstance(rows, list)
    lines = [f"accelerator check, {report['started']}, {report['seconds']} s", ""]
    for row in rows:
        name = row.get("what") or f"{row.get('model')}: {row.get('placement')}"
        figures = {
            key: value
            for key, value in row.items()
            if key not in {"section", "what", "model", "placement", "ok"}
        }
        lines.append(f"{'met   ' if row.get('ok') else 'MISSED'} {row.get('section')} {name}")
        lines += [f"         {key}: {_shown(key, value)}" for key, value in figures.items()]
    lines += ["", *_against_peers(rows)]
    (out / "accelerator_check.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(key: str, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("bytes"):
            return f"{value / 1e9:.3f} GB"
        if key in {"host_to_device", "disk_cold", "disk_warm", "disk"}:
            return f"{value / 1e9:.2f} GB/s"
        return f"{value:.4g}"
    return str(value)


def _against_peers(rows: list[dict[str, object]]) -> list[str]:
    """Say how far each peer stands from the bound, as a multiple of how far devmap does."""
    ours = {str(row["what"]): row for row in rows if "bound_seconds" in row and "over_bound" in row}
    lines = []
    for row in rows:
        what = str(row.get("what"))
        if what.startswith("Accelerate, "):
            _, home, label = what.split(", ")
            mine = ours.get(f"{home.removesuffix(' offload')}-homed, {label}")
            if mine is not None:
                bound, seconds, peer = (
                    float(str(each)) for each in (mine["bound_seconds"], mine["seconds"], row["seconds"])
                )
                distance = (peer - bound) / max(seconds - bound, 1e-9)
                lines.append(
                    f"{what}: {peer / seconds:.2f} times devmap's pass; (peer - bound) "
                    f"/ (devmap - bound) = {distance:.1f}"
                )
    return lines


def _fetch_wheels(folder: str, python: str) -> int:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary",
            ":all:",
            "--python-version",
            python,
            "--platform",
            "manylinux_2_28_x86_64",
            "--platform",
            "manylinux2014_x86_64",
            "--implementation",
            "cp",
            "--dest",
            folder,
            *WHEELS,
        ],
        check=False,
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
