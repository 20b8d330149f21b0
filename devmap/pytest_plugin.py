"""`pytest --devmap`: each config that pytest comes across is a test.

And what `devmap validate` finds is its failure.

pytest loads this module in every project that has devmap installed. So it imports nothing of devmap before
the option is given.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.checking.settings import Settings

__all__ = ["ConfigFile", "ConfigItem", "pytest_addoption", "pytest_collect_file", "pytest_configure"]

_SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--devmap`."""
    parser.getgroup("devmap").addoption(
        "--devmap", action="store_true", help="check each *.devmap.yaml as a test of its own"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read devmap's settings as `devmap validate` does in pytest's root folder."""
    if not config.getoption("devmap"):
        return
    from devmap.checking.registry import load_rules  # noqa: PLC0415 - only with the option
    from devmap.checking.settings import find_settings  # noqa: PLC0415 - only with the option
    from devmap.errors import UsageError  # noqa: PLC0415 - only with the option

    try:
        settings = find_settings(config.rootpath)
        load_rules(settings)
    except UsageError as error:
        raise pytest.UsageError(f"{error.message}; {error.help}") from None
    config.stash[_SETTINGS] = settings


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ConfigFile | None:
    """Take each config that the settings do not exclude.

    And one that is named on the command line in any case.
    """
    settings = parent.config.stash.get(_SETTINGS, None)
    if settings is None:
        return None
    from devmap.checking.discovery import is_config_name  # noqa: PLC0415 - only with the option

    if not is_config_name(file_path.name):
        return None
    if settings.is_excluded(str(file_path)) and not parent.session.isinitpath(file_path):
        return None
    return ConfigFile.from_parent(parent, path=file_path)


class ConfigFile(pytest.File):
    """A config, as pytest collects it."""

    def collect(self) -> list[ConfigItem]:
        """Return one test: a config is valid or it is not."""
        return [ConfigItem.from_parent(self, name="validate")]


class _Invalid(Exception):  # noqa: N818 - how a test ends, never seen outside
    """The config has findings that count; the message is what `devmap validate` prints."""


class ConfigItem(pytest.Item):
    """The check of one config."""

    def runtest(self) -> None:
        """Fail with the findings where `devmap validate` would exit with 1."""
        from devmap.api.checks.validation import validate  # noqa: PLC0415 - only with the option
        from devmap.checking.status import exit_status  # noqa: PLC0415 - only with the option
        from devmap.report.formats.findings import render  # noqa: PLC0415 - only with the option

        settings = self.config.stash[_SETTINGS]
        result = validate([os.path.relpath(self.path)], settings=settings)
        text = render(result.findings, files=result.files)
        if exit_status(result.findings, settings.fail_on):
            raise _Invalid(text.rstrip("\n"))
        if result.findings:
            self.add_report_section("call", "devmap", text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: None = None) -> str:  # type: ignore[override]
        """Return the findings and nothing else; pytest's own words for what is no finding."""
        return (
            str(excinfo.value)
            if isinstance(excinfo.value, _Invalid)
            else str(super().repr_failure(excinfo, style))
        )

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return what a failure is headed with."""
        return self.path, None, f"devmap validate {os.path.relpath(self.path)}"
