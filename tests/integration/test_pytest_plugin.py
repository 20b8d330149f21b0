"""`pytest --devmap`, run by pytest in projects of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
GOOD = "version: 1\nmodel: {manifest: llama-3-70b.manifest.yaml}\nmax_memory: {0: 80GB, 1: 80GB}\n"
BAD = f"{GOOD}device_map: {{model.layer.0: 0, '': balanced}}\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a good and a bad config, a lock that is no config, and one test."""
    shutil.copy(EXAMPLES / "llama-3-70b.manifest.yaml", pytester.path)
    files = {
        "good.devmap.yaml": GOOD,
        "bad.devmap.yml": BAD,
        "good2.devmap.lock.yaml": "",
        "test_own.py": "def test_own(): pass\n",
    }
    for name, text in files.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    pytester.makeini("[pytest]\n")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_each_config_is_a_test_that_fails_with_the_findings(project: pytest.Pytester) -> None:
    result = run(project, "--devmap")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*devmap validate bad.devmap.yml*",
            "error[[]DM201 unmatched-key[]]: 'model.layer.0' is not a module of this model",
            "  --> bad.devmap.yml:4:14",
            " 4 | device_map: {model.layer.0: 0, '': balanced}",
            "   |              ^^^^^^^^^^^^^ did you mean 'model.layers.0'[?]",
            "FAILED bad.devmap.yml::validate*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_config_can_be_named_by_its_node(project: pytest.Pytester) -> None:
    run(project, "--devmap", "good.devmap.yaml::validate").assert_outcomes(passed=1)
    run(project, "--devmap", "-k", "devmap and not bad").assert_outcomes(passed=1, deselected=2)


def test_without_the_option_nothing_of_devmap_is_loaded(project: pytest.Pytester) -> None:
    own = (
        "import sys\ndef test_own():\n    assert {name for name in sys.modules "
        "if name.startswith('devmap')} <= {allowed}\n"
    )
    text = (
        own.replace("{allowed}", "{'devmap', 'devmap.pytest_plugin'}")
        + "    assert not {'pydantic', 'yaml', 'torch'} & set(sys.modules)\n"
    )
    (project.path / "test_own.py").write_text(text, encoding="utf-8")
    run(project).assert_outcomes(passed=1)


def test_settings_of_the_root_folder_count(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.devmap]\nignore = ["DM201"]\n')
    (project.path / "sub").mkdir()
    (project.path / "bad.devmap.yml").rename(project.path / "sub" / "bad.devmap.yml")
    shutil.copy(project.path / "llama-3-70b.manifest.yaml", project.path / "sub")
    run(project, "--devmap", "sub").assert_outcomes(passed=1)


def test_findings_below_fail_on_pass_and_are_shown_with_the_report(project: pytest.Pytester) -> None:
    (project.path / "bad.devmap.yml").write_text(GOOD.replace("1: 80GB", "1: 80GB, 2: 0GB"), encoding="utf-8")
    result = run(project, "--devmap", "-rA")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*[[]DM405 *"])
    project.makepyprojecttoml('[tool.devmap]\nfail-on = "warning"\n')
    run(project, "--devmap").assert_outcomes(passed=2, failed=1)


def test_excluded_configs_are_left_out_unless_they_are_named(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.devmap]\nexclude = ["bad.*"]\n')
    run(project, "--devmap").assert_outcomes(passed=2)
    run(project, "--devmap", "bad.devmap.yml").assert_outcomes(failed=1)


def test_settings_that_cannot_be_read_are_a_usage_error(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.devmap]\nselct = ["DM2"]\n')
    result = run(project, "--devmap")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *unknown setting 'selct'*did you mean 'select'[?]"])


def test_the_junit_file_of_pytest_holds_the_findings(project: pytest.Pytester) -> None:
    run(project, "--devmap", "--junitxml", "out.xml")
    text = (project.path / "out.xml").read_text(encoding="utf-8")
    assert 'tests="3"' in text
    assert "DM201 unmatched-key" in text
