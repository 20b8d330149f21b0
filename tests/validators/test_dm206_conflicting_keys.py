"""DM206 conflicting-keys: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD
            + "device_map: {'model.layers[0-2]': 0, 'model.layers[1-3]': 1, '': 0}\nmax_memory: {0: 2GB, "
            "1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers[1-3]"),
                    (
                        "'model.layers[1-3]' puts 'model.layers.1' and 1 other path on device 1, and "
                        "'model.layers[0-2]' puts it on device 0"
                    ),
                )
            ],
        ),
        (  # each pair of keys by itself
            HEAD
            + "device_map: {'model.layers[0-1]': 0, 'model.layers[1-2]': 1, 'model.layers[2-3]': cpu, '': "
            "0}\n"
            "max_memory: {0: 2GB, 1: 2GB, cpu: 2GB}\n",
            [
                (
                    ("device_map", "model.layers[1-2]"),
                    (
                        "'model.layers[1-2]' puts 'model.layers.1' on device 1, and 'model.layers[0-1]' puts "
                        "it on device 0"
                    ),
                ),
                (
                    ("device_map", "model.layers[2-3]"),
                    (
                        "'model.layers[2-3]' puts 'model.layers.2' on cpu, and "
                        "'model.layers[1-2]' puts it on "
                        "device 1"
                    ),
                ),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM206")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'model.layers[0-2]': 0, 'model.layers[1-3]': 0, '': 1}\nmax_memory: {0: 2GB, 1: "
        "2GB}\n",
        HEAD + "device_map: {'model.layers[0-2]': 0, 'model.layers[2-3]': 1, model.layers.2: 0, '': "
        "0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM206") == ()
