"""Settings: found upwards, every key checked, every value of the right kind."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

import pytest

from devmap.checking.settings import NearestSettings, Settings, find_settings
from devmap.config.yaml.reader import Limits
from devmap.errors import UsageError
from devmap.findings.model import Severity

if TYPE_CHECKING:
    from pathlib import Path


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.devmap]\nignore = ["DM1"]\n')
    assert find_settings(deep).ignore == ("DM1",)
    assert find_settings(deep).root == tmp_path
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\n")
    assert find_settings(deep).ignore == ("DM1",)
    (tmp_path / "a" / "devmap.toml").write_text('ignore = "DM2"\n')
    assert find_settings(deep).ignore == ("DM2",)


def test_every_setting_is_read(tmp_path: Path) -> None:
    (tmp_path / "devmap.toml").write_text(
        'select = ["DM2"]\nextend-select = ["DM301"]\nrules = ["acme_rules"]\nfail-on = '
        '"warning"\nexclude = ["old/*"]\n'
        'per-path-ignores = {"tests/**" = ["DM4"]}\nlimits = {size = "2MB", depth = 100, nodes = 5}\n'
    )
    settings = find_settings(tmp_path)
    assert settings.select == ("DM2",)
    assert settings.extend_select == ("DM301",)
    assert settings.packs == ("acme_rules",)
    assert settings.fail_on is Severity.WARNING
    assert settings.limits == Limits(2_000_000, 100, 5)
    assert settings.ignored_in(str(tmp_path / "tests" / "x" / "y.devmap.yaml")) == ("DM4",)
    assert settings.ignored_in(str(tmp_path / "y.devmap.yaml")) == ()
    assert settings.is_excluded(str(tmp_path / "old" / "y.devmap.yaml"))
    assert not settings.is_excluded(str(tmp_path / "new" / "y.devmap.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('ingore = ["DM1"]', "did you mean 'ignore'?"),
        ("zzz = 1", "known settings"),
        ("select = 3", "docs/config.md"),
        ("select = [3]", "docs/config.md"),
        ('fail-on = "loud"', "docs/config.md"),
        ("limits = {depht = 3}", "docs/config.md"),
        ("limits = {depth = 100000}", "docs/config.md"),
        ("limits = {nodes = true}", "docs/config.md"),
        ('limits = {size = "2mb"}', "docs/config.md"),
        ("limits = 3", "docs/config.md"),
        ("per-path-ignores = []", "docs/config.md"),
        ("select = [", "fix it"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "devmap.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        find_settings(tmp_path)
    assert words in caught.value.help
    assert "devmap.toml" in caught.value.message


def test_a_table_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\ndevmap = 3\n")
    with pytest.raises(UsageError, match="not a table"):
        find_settings(tmp_path)


def test_options_replace_or_add() -> None:
    settings = Settings(select=("DM1",), ignore=("DM2",), extend_select=("DM3",)).with_options(
        select=["DM4,DM5"], ignore=["DM6"], extend_select=["DM7", "DM8"], fail_on="never"
    )
    assert settings.select == ("DM4", "DM5")
    assert settings.ignore == ("DM2", "DM6")
    assert settings.extend_select == ("DM3", "DM7", "DM8")
    assert settings.fail_on == "never"
    assert Settings(select=("DM1",)).with_options() == Settings(select=("DM1",))


def test_each_config_has_the_settings_nearest_to_it(tmp_path: Path) -> None:
    (tmp_path / "team" / "jobs").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.devmap]\nfail-on = 'warning'\nignore = ['DM4']\n")
    (tmp_path / "team" / "devmap.toml").write_text("ignore = ['DM404']\n")
    nearest = NearestSettings(extend_select=["DM307"])
    above, below = (
        nearest.of(str(tmp_path / "x.devmap.yaml")),
        nearest.of(str(tmp_path / "team" / "jobs" / "y.devmap.yaml")),
    )
    assert (above.ignore, above.fail_on, above.extend_select) == (("DM4",), "warning", ("DM307",))
    assert (below.ignore, below.fail_on, below.extend_select) == (("DM404",), "error", ("DM307",))
    assert below.root == (tmp_path / "team").resolve()


def test_an_ignore_of_a_path_ends_after_its_day(tmp_path: Path) -> None:
    path = tmp_path / "devmap.toml"
    path.write_text("[per-path-ignores]\n'old/*' = {rules = ['DM4'], reason = 'moves', until = 2026-03-31}\n")
    config = str(tmp_path / "old" / "x.devmap.yaml")
    last = dataclasses.replace(find_settings(tmp_path), today=dt.date(2026, 3, 31))
    after = dataclasses.replace(last, today=dt.date(2026, 4, 1))
    assert (last.ignored_in(config), last.ended) == (("DM4",), ())
    assert after.ignored_in(config) == ()
    assert after.ended == ("the per-path-ignores of 'old/*' ended on 2026-03-31: moves",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("require-reasons = true\nper-path-ignores = {'a/*' = ['DM4']}\n", "'a/\\*' lacks its reason"),
        ("per-path-ignores = {'a/*' = {rules = ['DM4']}}\n", "'a/\\*' lacks its reason"),
        ("per-path-ignores = {'a/*' = {rules = ['DM4'], reason = 'r', until = 'soon'}}\n", "is a date"),
        ("per-path-ignores = {'a/*' = {rules = ['DM4'], reason = 'r', untill = 2027-01-01}}\n", "untill"),
        ("require-reasons = 1\n", "true or false"),
    ],
)
def test_an_ignore_without_its_reason_is_a_usage_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "devmap.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        find_settings(tmp_path)
