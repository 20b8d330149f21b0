"""Policy packs: names that do not exist are told, and `devmap policy test` tries the examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_commands import devmap_command
from tests.cli.test_every_rule import BY_MANIFEST, EXAMPLE

PACK = """\
version: 1
name: team
rules:
  - code: TEAM001
    name: room
    over: plan
    message: less than 10% of an accelerator is kept free
    schema:
      properties: {{accelerators: {{additionalProperties: {{properties: {{{name}: {{minimum: 10}}}}}}}}}}
    good: [{{accelerators: {{'0': {{kept_free_percent: 20}}}}}}]
    bad: [{{accelerators: {{'0': {{kept_free_percent: {bad}}}}}}}]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pack(*, name: str = "kept_free_percent", bad: int = 5) -> None:
    Path("team.yaml").write_text(PACK.format(name=name, bad=bad), encoding="utf-8")


def test_examples_that_do_what_they_have_to_pass() -> None:
    pack()
    outcome = devmap_command("policy", "test", "team.yaml")
    assert (outcome.status, outcome.stdout) == (0, "ok     TEAM001 room: 1 good, 1 bad\n")


def test_an_example_that_keeps_a_rule_it_has_to_break_fails() -> None:
    pack(bad=15)
    outcome = devmap_command("policy", "test", "team.yaml")
    assert outcome.status == 1
    assert outcome.stdout.endswith(
        "FAILED TEAM001 room: 1 good, 1 bad\n       bad example 1 keeps the rule\n"
    )


def test_a_misspelt_property_is_a_fault_of_the_pack_with_its_place() -> None:
    pack(name="kept_free_procent")
    outcome = devmap_command("policy", "test", "team.yaml")
    assert outcome.status == 1
    assert (
        "team.yaml:9:71: DM602 the plan has no 'kept_free_procent'; did you mean 'kept_free_percent'?"
        in outcome.stdout
    )
    Path(EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
    text = BY_MANIFEST + "max_memory: {0: 2GB}\npolicies: [./team.yaml]\n"
    Path("x.devmap.yaml").write_text(text, encoding="utf-8")
    assert "DM602" in devmap_command("validate", "x.devmap.yaml").stdout


@pytest.mark.parametrize("name", ["production", "inference", "training", "shared-server"])
def test_the_packs_that_come_with_devmap_use_names_that_exist(name: str) -> None:
    assert devmap_command("policy", "test", name).status == 0


def test_a_pack_that_is_not_there_cannot_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert devmap_command("policy", "test", "./nowhere.yaml").status == 2
    assert "there is no policy pack './nowhere.yaml'" in capsys.readouterr().err


def test_a_lock_can_be_written_where_a_policy_asks_for_one() -> None:
    Path(EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
    text = BY_MANIFEST + "max_memory: {0: 4GB}\nheadroom: 20%\npolicies: [production]\n"
    Path("x.devmap.yaml").write_text(text, encoding="utf-8")
    assert devmap_command("validate", "x.devmap.yaml").status == 1
    assert devmap_command("resolve", "x.devmap.yaml", "--lock", "--quiet").status == 0
    assert "PRD003" not in devmap_command("validate", "x.devmap.yaml").stdout
