"""DM201 unmatched-key: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "device_map: {model.layer.0: 0, '': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("device_map", "model.layer.0"), "'model.layer.0' is no module of this model")],
        ),
        (
            HEAD + "device_map: {'layers[0-1]': 0, '': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("device_map", "layers[0-1]"), "'layers[0-1]' is no module of this model")],
        ),
        (
            HEAD + "device_map: {'model.layers.*.atention': 0, '': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("device_map", "model.layers.*.atention"), "the glob 'model.layers.*.atention' matches no module of this model")],
        ),
        (
            HEAD + "device_map: {'model.layers[2-9].mlpp': 0, '': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("device_map", "model.layers[2-9].mlpp"), "'model.layers[2-9].mlpp' is no module of this model")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM201")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'model.layers[2-9]': 0, '': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "device_map: auto\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM201") == ()
