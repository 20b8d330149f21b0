"""DM201 unmatched-key: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_each_key_has_its_suggestion_and_its_edit_or_what_stands_there(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    keys = "{'': 0, 'model.layer.0': 0, model.layers.9: 0, model.layers.0.self_attn.p_proj: 0, lm_hed: 0}"
    found = findings_of(context_of(f"{HEAD}device_map: {keys}\nmax_memory: {{0: 2GB}}\n"), "DM201")
    assert [
        (finding.label, finding.help, finding.edit and finding.edit.replacement) for finding in found
    ] == [
        ("did you mean 'model.layers.0'?", "", "'model.layers.0'"),
        ("", "'model.layers' has 0 to 3", None),
        ("did you mean 'model.layers.0.self_attn.v_proj'?", "", None),
        ("did you mean 'lm_head'?", "", "lm_head"),
    ]


def test_of_many_wrong_keys_the_first_fifty_have_suggestions(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    keys = ", ".join(f"model.layer.0.x{number}: 0" for number in range(52)).replace(".x", ".mlp.up_prj.x")
    wrong = ", ".join(f"'model.layer[{number}-3]': 0" for number in range(3))
    found = findings_of(
        context_of(f"{HEAD}device_map: {{'': 0, {keys}, {wrong}}}\nmax_memory: {{0: 2GB}}\n"), "DM201"
    )
    assert len(found) == 55
    assert [finding.label for finding in found[-3:]] == ["", "", ""]


def test_it_is_silent_without_a_model(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert (
        findings_of(
            context_of("version: 1\nmodel: {checkpoint: ./none}\ndevice_map: {x: 0}\nmax_memory: {0: 2GB}\n"),
            "DM201",
        )
        == ()
    )
