"""DM223 profile-without-effect: what it says, where, and when it is silent."""

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
            + "profiles: {a: {}, b: {device_map: auto}}\ndevice_map: auto\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (("profiles", "a"), "the profile 'a' is empty"),
                (("profiles", "b"), "the profile 'b' changes nothing: the config says the same"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM223")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "profiles: {a: {device_map: balanced}}\ndevice_map: auto\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "profiles: {a: {max_memory: {cpu: 2GB}}}\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD
        + "profiles: {a: {device_map: auto, headroom: 5%}}\ndevice_map: auto\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "profiles: {a: {max_memory: {0: 2000000000, 1: 1GB}}}\nmax_memory: {0: 2000000000, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM223") == ()
