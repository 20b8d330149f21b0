"""Completion in the three shells.

The scripts' text, what TAB proposes, and a real bash that is typed into.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from devmap.cli.main import COMMANDS, cli

BIN = Path(sys.executable).parent
PATH = f"{BIN}{os.pathsep}/usr/bin{os.pathsep}/bin"


def proposed(words: str, *, cwd: Path) -> list[str]:
    """What the console script answers a bash that asks for the last of some words: each as `type,value`."""
    count = len(words.split(" ")) - 1
    environment = {
        "PATH": PATH,
        "COMP_WORDS": words,
        "COMP_CWORD": str(count),
        "_DEVMAP_COMPLETE": "bash_complete",
    }
    result = subprocess.run(
        [str(BIN / "devmap")], check=False, capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("shell", "registers"),
    [
        ("bash", "complete -o nosort -F _devmap_completion devmap"),
        ("zsh", "compdef _devmap_completion devmap"),
        ("fish", 'complete --no-files --command devmap --arguments "(_devmap_completion)"'),
    ],
)
def test_each_shell_gets_a_script_that_registers_the_command_and_asks_it(shell: str, registers: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="devmap")
    assert result.exit_code == 0
    assert registers in result.stdout
    assert f"_DEVMAP_COMPLETE={shell}_complete" in result.stdout


def test_there_is_no_script_for_another_shell() -> None:
    result = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.output


def test_commands_are_proposed_in_order_of_use(tmp_path: Path) -> None:
    assert proposed("devmap ", cwd=tmp_path) == [f"plain,{name}" for name in COMMANDS]
    assert proposed("devmap va", cwd=tmp_path) == ["plain,validate"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("devmap validate --fo", ["plain,--format"]),
        ("devmap validate --format s", ["plain,sarif"]),
        ("devmap validate --select DM20", [f"plain,DM20{digit}" for digit in range(1, 10)]),
        ("devmap explain unmatched-k", ["plain,unmatched-key"]),
        ("devmap validate exam", ["dir,exam"]),
        ("devmap diff a.devmap.yaml b", ["dir,b"]),
        ("devmap completion f", ["plain,fish"]),
    ],
)
def test_options_values_rules_and_files_are_proposed(words: str, expected: list[str], tmp_path: Path) -> None:
    assert proposed(words, cwd=tmp_path) == expected


def test_broken_settings_do_not_disturb_a_tab(tmp_path: Path) -> None:
    (tmp_path / "devmap.toml").write_text("no toml", encoding="utf-8")
    assert proposed("devmap explain DM2", cwd=tmp_path) == []


def test_a_tab_after_the_bare_command_loads_no_command() -> None:
    script = (
        "import sys; from devmap.cli.main import cli; import click\n"
        "names = [item.value for item in cli.shell_complete(click.Context(cli), '')]\n"
        "print('validate' in names, [name for name in sys.modules if name.endswith('_command')])"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "True []"


class Terminal:
    """An interactive bash without anybody's start-up files, typed into through a terminal of its own."""

    def __init__(self, cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = {
            "PATH": PATH,
            "TERM": "dumb",
            "PS1": "> ",
            "HISTFILE": "/dev/null",
            "INPUTRC": "/dev/null",
        }
        command = ["bash", "--norc", "--noprofile", "-i"]
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, text: str, *, until: str, seconds: float = 30) -> str:
        """Type a text and return what the terminal shows up to and with `until`."""
        os.write(self._ours, text.encode())
        shown, end = "", time.monotonic() + seconds
        while until not in shown and time.monotonic() < end:
            if select.select([self._ours], [], [], 0.1)[0]:
                shown += os.read(self._ours, 4096).decode()
        assert until in shown, f"bash showed {shown!r}"
        return shown

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def test_a_real_bash_completes_a_command_an_option_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "llama.devmap.yaml").write_text("version: 1\n", encoding="utf-8")
    bash = Terminal(tmp_path)
    try:
        bash.type('eval "$(devmap completion bash)"; echo rea""dy\n', until="ready\r\n")
        bash.type("devmap val\t", until="devmap validate ")
        bash.type("--stat\t", until="--statistics ")
        bash.type("lla\t", until="llama.devmap.yaml ")
    finally:
        bash.close()
