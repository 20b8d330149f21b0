from __future__ import annotations

import pytest
from click.testing import CliRunner

from devmap.cli.main import COMMANDS, cli


def test_the_help_lists_every_command_with_its_line() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"  {name} " in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_page_that_documents_its_options(name: str) -> None:
    command = cli.get_command(None, name)  # type: ignore[arg-type]  # our group does not look at it
    assert command is not None
    assert command.help
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.opts}"
    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_a_misspelt_command_is_suggested() -> None:
    result = CliRunner().invoke(cli, ["validat"])
    assert result.exit_code == 2
    assert "Did you mean 'validate'?" in result.output


def test_the_version_is_the_distribution_s() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("devmap 0.")
