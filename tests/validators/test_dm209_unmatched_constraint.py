"""DM209 unmatched-constraint: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_every_path_of_every_group_and_device_is_looked_at(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    wishes = (
        "same_device: [[lm_hed, model.norm], [model.layers.9, lm_head]]\nforbid: {1: "
        "[model.embed_tokn], 0: [layers.0.self_attn.p_proj]}\n"
    )
    found = findings_of(context_of(HEAD + wishes + "max_memory: {0: 2GB, 1: 2GB}\n"), "DM209")
    assert [
        (finding.path, finding.label, finding.help, finding.edit and finding.edit.replacement)
        for finding in found
    ] == [
        (("same_device", 0, 0), "did you mean 'lm_head'?", "", "lm_head"),
        (("same_device", 1, 0), "", "'model.layers' has 0 to 3", None),
        (("forbid", "1", 0), "did you mean 'model.embed_tokens'?", "", "model.embed_tokens"),
        (("forbid", "0", 0), "", "the model has model, lm_head", None),
    ]


def test_it_is_silent_without_a_model(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = (
        "version: 1\nmodel: {checkpoint: ./none}\nforbid: {0: [x]}\nsame_device: "
        "[[y, z]]\nmax_memory: {0: 2GB}\n"
    )
    assert findings_of(context_of(text), "DM209") == ()


def test_a_glob_is_not_rewritten(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(
        context_of(HEAD + "forbid: {0: ['model.*norms']}\nmax_memory: {0: 2GB, 1: 2GB}\n"), "DM209"
    )
    assert (finding.label, finding.edit) == ("", None)
