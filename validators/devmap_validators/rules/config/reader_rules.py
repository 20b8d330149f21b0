"""DM101 to DM113: what the models find wrong with a config's keys and values.

These rules only pass on faults that the reader gave their code; each row is a rule with its page and
examples.
"""

from __future__ import annotations

from devmap.findings.faults import relayed

__all__ = ["READER_RULES"]

READER_RULES = (
    relayed(
        "DM101",
        "unknown-key",
        "A key that configs do not have",
        why=(
            "A misspelt key would be ignored, and the config would do something else than it says. The "
            "message names the key that was probably meant."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memry: {0: 2GB}
""",
    ),
    relayed(
        "DM102",
        "missing-key",
        "A key that every config needs is absent",
        why=(
            "`version` fixes what the other keys mean, and `model` says what is placed. There are no "
            "defaults for them."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
model: {manifest: example.manifest.yaml}
""",
    ),
    relayed(
        "DM103",
        "wrong-type",
        "A value is of another kind than its key holds",
        why=(
            "Values are not converted silently: a list where one text is meant, or text where a number is "
            "meant, is most often a slip of indentation or quotes."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: [LlamaDecoderLayer]
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: LlamaDecoderLayer
""",
    ),
    relayed(
        "DM104",
        "invalid-size",
        "A size has no unit that is known, or an ambiguous one",
        why=(
            "`GB` is 10^9 bytes and `GiB` 2^30. A lower-case final `b` is refused: `8gb` is 8 gigabytes "
            "to most people and 8 gigabits, an eighth of that, to accelerate."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 8gb}
""",
    ),
    relayed(
        "DM105",
        "invalid-device",
        "A value or key that names no device",
        why=(
            "Devices are an index such as 0, `cpu`, `disk`, or a torch device such as `cuda:0`. Anything "
            "else would fail when the model is loaded, minutes later."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': gpu0!}
max_memory: {0: 2GB}
""",
    ),
    relayed(
        "DM106",
        "unknown-choice",
        "A word that is none of those its key may have",
        why="Each of these keys has a short list of words. The message shows it.",
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: inference
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: infrence
""",
    ),
    relayed(
        "DM107",
        "value-out-of-range",
        "A number or text outside what its key allows",
        why="A batch of zero sequences, a negative rate or a factory without a colon has no meaning.",
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: {kind: inference, batch_size: 1}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: {kind: inference, batch_size: 0}
""",
    ),
    relayed(
        "DM108",
        "invalid-map-key",
        "A key of the device map that is not a path, range or glob",
        why=(
            "Keys are names joined by dots, with ranges such as `model.layers[0-3]` and globs such as "
            "`model.layers.*.mlp`. Blanks, empty segments and ranges that run backwards name nothing."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-3]': 0, '': auto}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[3-0]': 0, '': auto}
max_memory: {0: 2GB}
""",
    ),
    relayed(
        "DM109",
        "unsupported-version",
        "The config's version is not one that this devmap reads",
        why=(
            "`version` fixes what the other keys mean. A config of a later version may hold keys that "
            "this devmap would misread."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 2
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    ),
    relayed(
        "DM110",
        "colliding-devices",
        "Two keys of a mapping name the same device",
        why=(
            "`0`, `'0'` and `cuda:0` are one device. Of two such keys one would win and the other would "
            "have no effect."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 'cuda:0': 1GB}
""",
    ),
    relayed(
        "DM111",
        "unknown-profile",
        "The profile that was picked is not in the config",
        why=(
            "`--profile` names one of `profiles`. A name that is not there would leave the config as it "
            "is, on a machine that it was not written for."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {cpu: 12GB}}}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {cpu: 12GB}}}
""",
    ),
    relayed(
        "DM112",
        "unreadable-parent",
        "The config that `extends` names cannot be read",
        why=(
            "Without its parent a config is not the config that somebody meant. Paths start from the "
            "folder of the file that names them."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
extends: ../no-such-base.devmap.yaml
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    ),
    relayed(
        "DM113",
        "circular-extends",
        "A config extends itself, directly or through its parents",
        why="Each config starts from its parent, so a circle has no beginning.",
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
extends: example.devmap.yaml
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    ),
)
