"""Shapes: every error in our words, at its place, all of them together."""

from __future__ import annotations

import re

import pytest

from devmap.config.document import parse_document
from devmap.config.values.size import parse_size

HEAD = "version: 1\nmodel: {}\n"
STRATEGIES = "auto, sequential, balanced, balanced_low_0, fastest"
PATHS = (
    "expected names joined by dots, ranges such as 'model.layers[0-39]' or globs such as 'model.layers.*.mlp'"
)


def faults(text: str) -> list[tuple[str, int, int, str, str]]:
    document = parse_document(text.encode(), "x.devmap.yaml")
    return [
        (
            fault.code,
            fault.position.start.line,
            fault.position.start.column,
            fault.message,
            fault.label or fault.help,
        )
        for fault in document.faults
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "devise_map: auto\n",
            ("DM101", 3, 1, "'devise_map' is not a key of a config", "did you mean 'device_map'?"),
        ),
        (
            "batch_size: 2\n",
            ("DM101", 3, 1, "'batch_size' is not a key of a config", "it is a key of 'workload'"),
        ),
        (
            "offload: {foldr: x}\n",
            ("DM101", 3, 11, "'foldr' is not a key of 'offload'", "did you mean 'folder'?"),
        ),
        (
            "offload: {headroom: 1}\n",
            (
                "DM101",
                3,
                11,
                "'headroom' is not a key of 'offload'",
                "it is a key of the config itself, one level up",
            ),
        ),
        (
            "machine: {devices: {0: {memory: 1GB, flopz: 1}}}\n",
            ("DM101", 3, 38, "'flopz' is not a key of 'machine.devices.0'", "did you mean 'flops'?"),
        ),
        (
            "machine: {devices: {0: {}}}\n",
            ("DM102", 3, 21, "'machine.devices.0' lacks 'memory'", "add 'memory:'"),
        ),
        (
            "offload: {folder: 12}\n",
            ("DM103", 3, 19, "'offload.folder' expects text, found the number 12", "put quotes around it"),
        ),
        (
            "offload: {buffers: no}\n",
            ("DM103", 3, 20, "'offload.buffers' expects true or false, found 'no'", "write false"),
        ),
        ("offload: [a]\n", ("DM103", 3, 10, "'offload' expects a mapping, found a list", "")),
        ("max_memory: [1]\n", ("DM103", 3, 13, "'max_memory' expects a mapping, found a list", "")),
        (
            "device_map: [auto]\n",
            (
                "DM103",
                3,
                13,
                (
                    "'device_map' expects a strategy such as auto, or a mapping from modules to devices, "
                    "found a list"
                ),
                "",
            ),
        ),
        (
            "workload: {batch_size: two}\n",
            ("DM103", 3, 24, "'workload.batch_size' expects a whole number, found 'two'", ""),
        ),
        (
            "workload: {batch_size: 0}\n",
            ("DM107", 3, 24, "'workload.batch_size' expects at least 1, found the number 0", ""),
        ),
        (
            "max_memory: {0: 8gb}\n",
            (
                "DM104",
                3,
                17,
                "'8gb' is ambiguous: 8GB in bytes, or 1.0 GB if the lower-case 'b' means bits; write '8GB'",
                "",
            ),
        ),
        (
            "max_memory: {gpu: 8GB}\n",
            (
                "DM105",
                3,
                14,
                (
                    "'gpu' is not a valid device; expected an index such as 0, "
                    "'cpu', 'disk' or a torch device such as "
                    "'cuda:0'"
                ),
                "did you mean 0?",
            ),
        ),
        (
            "device_map:\n  lm_head: balansed_low_0\n",
            (
                "DM105",
                4,
                12,
                f"'balansed_low_0' is neither a device (0, cpu, disk, cuda:0) nor a strategy ({STRATEGIES})",
                "did you mean 'balanced_low_0'?",
            ),
        ),
        (
            "workload: inferense\n",
            (
                "DM106",
                3,
                11,
                "'workload' expects one of inference, training, server, found 'inferense'",
                "did you mean 'inference'?",
            ),
        ),
        (
            "same_device: [[a..b]]\n",
            (
                "DM108",
                3,
                16,
                f"'a..b' is not a valid module path; {PATHS}",
                "",
            ),
        ),
        (
            "max_memory: {0: 1GB, 'cuda:0': 2GB}\n",
            ("DM110", 3, 22, "'cuda:0' and '0' are the same device", "keep one of them"),
        ),
        (
            "forbid: {0: [a], '00': [b]}\n",
            ("DM110", 3, 18, "'00' and '0' are the same device", "keep one of them"),
        ),
        (
            "machine: {devices: {0: {memory: 1GB}, xpu: {memory: 1GB}}}\n",
            ("DM110", 3, 39, "'xpu' and '0' are the same device", "keep one of them"),
        ),
        (
            "headroom: {0: 1%, 0: 2%}\n",
            (
                "DM006",
                3,
                19,
                "the key '0' appears twice in one mapping; the first is at line 3",
                "keep one of them",
            ),
        ),
    ],
)
def test_an_error_of_shape_has_a_sentence_and_a_place(
    text: str, expected: tuple[str, int, int, str, str]
) -> None:
    assert faults(HEAD + text) == [expected]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2", "this devmap reads version 1 of the format, found '2'"),
        ("true", "this devmap reads version 1 of the format, found true"),
        ("'1'", "this devmap reads version 1 of the format, found '1'"),
    ],
)
def test_only_the_number_1_is_version_1(version: str, message: str) -> None:
    assert [(fault[0], fault[3]) for fault in faults(f"version: {version}\nmodel: {{}}\n")] == [
        ("DM109", message)
    ]


def test_a_device_with_a_blank_is_recognised_where_it_is_a_mapping() -> None:
    (found,) = faults(HEAD + "device_map:\n  lm_head:\n    cuda: 0\n")
    assert found[0] == "DM105"
    assert found[4] == "did you mean 'cuda:0'?"


def test_missing_keys_are_reported_at_their_mapping() -> None:
    assert [(fault[0], fault[1], fault[3]) for fault in faults("model: {}\n")] == [
        ("DM102", 1, "the config lacks 'version'")
    ]


def test_all_faults_come_out_together() -> None:
    text = (
        "version: 1\nmodel: {dtype: bf61, dtype: x}\nmax_memory: {0: 8gb, cuda:0: 010}\nsame_device: [[a, "
        "3], 4]\n"
        "profiles: {p: {offload: {x: 1}, max_memory: {cpu: -1}}, q: 3}\n"
    )
    assert sorted({fault[0] for fault in faults(text)}) == [
        "DM006",
        "DM018",
        "DM101",
        "DM103",
        "DM104",
        "DM106",
        "DM108",
        "DM110",
    ]
    assert sorted(fault[2] for fault in faults(text) if fault[1] == 5) == [26, 51, 60]


def test_no_message_speaks_python_or_pydantic() -> None:
    values = ["null", "[]", "{}", "{a: 1}", "3", "1.5", "x", "true", "[[1]]"]
    keys = [
        "model",
        "device_map",
        "max_memory",
        "headroom",
        "no_split_module_classes",
        "workload",
        "offload",
        "extends",
        "profiles",
    ]
    keys += ["policies", "objective", "machine", "same_device", "forbid"]
    for key in keys:
        for value in values:
            for fault in faults(f"version: 1\n{key}: {value}\n"):
                assert not re.search(
                    r"\b(str|int|dict|list\[|bool|float|NoneType|None|True|False|Input|should|instance|pydantic)\b",
                    fault[3],
                ), fault
                assert len(fault[3]) < 200


@pytest.mark.parametrize("written", ["-5GB", "- 5 GiB", "-1"])
def test_a_negative_size_is_called_negative(written: str) -> None:
    with pytest.raises(ValueError, match=f"a size cannot be negative, found '{written}'"):
        parse_size(written)
