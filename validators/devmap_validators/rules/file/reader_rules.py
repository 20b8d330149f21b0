"""DM001 to DM018: what the YAML reader finds wrong with a file.

These rules only pass on faults that the reader gave their code; each row is a rule with its page and
examples.
"""

from __future__ import annotations

from devmap.findings.faults import relayed

__all__ = ["READER_RULES"]

READER_RULES = (
    relayed(
        "DM001",
        "file-too-large",
        "The file is larger than a config may be",
        why=(
            "A config of a whole cluster has a few kilobytes. A file of a megabyte is something else: a "
            "checkpoint's index, a log, or an attempt to keep the checker busy. It is refused before it "
            "is parsed. The limit `size` of `[tool.devmap.limits]` raises it."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="version: 1\nmodel: {manifest: example.manifest.yaml}\n# " + "x" * (1 << 20) + "\n",
    ),
    relayed(
        "DM002",
        "invalid-encoding",
        "The file is not UTF-8",
        why=(
            "A config is read the same way on every machine, so its encoding is fixed. A byte of another "
            "encoding would become another letter in a path or a module name."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="version: 1\nmodel: {manifest: caf\udce9.manifest.yaml}\n",
    ),
    relayed(
        "DM003",
        "forbidden-character",
        "A control character, a byte-order mark in the middle or an odd line separator",
        why=(
            "Such characters do not show in an editor. One of them in a module path makes a key that "
            "looks right and names nothing."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: \x002GB}\n",
    ),
    relayed(
        "DM004",
        "invalid-yaml",
        "The file is not YAML",
        why=(
            "What cannot be parsed cannot be checked. Patterns that begin with `*`, `@` or `%` need "
            "quotes, and so does a value that holds a colon and a space."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map:
  '*.layers': 0
  '': auto
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map:
  *.layers: 0
max_memory: {0: 2GB}
""",
    ),
    relayed(
        "DM005",
        "tab-indentation",
        "A tab indents a line",
        why="YAML forbids tabs there, and parsers differ in how they fail. Indent with blanks.",
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
  0: 2GB
""",
        bad="version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory:\n\t0: 2GB\n",
    ),
    relayed(
        "DM006",
        "duplicate-key",
        "A key appears twice in one mapping",
        why=(
            "YAML's libraries keep the last of two equal keys and say nothing, so that half of what "
            "somebody wrote has no effect."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 0: 1GB}
""",
    ),
    relayed(
        "DM007",
        "explicit-tag",
        "A value has a tag such as `!!int` or `!Foo`",
        why=(
            "A config is plain data: text, numbers, true, false, lists and mappings. Tags make loaders "
            "build objects, which is how YAML files come to run code."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: !!str 2GB}
""",
    ),
    relayed(
        "DM008",
        "nested-too-deep",
        "Collections are nested too deep",
        why=(
            "No config nests more than a handful of levels. Thousands of brackets overflow the stack of "
            "parsers, some of which then crash the interpreter."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="version: 1\nmodel: {manifest: example.manifest.yaml}\nsame_device: "
        + "[" * 70
        + "]" * 70
        + "\n",
    ),
    relayed(
        "DM009",
        "too-many-nodes",
        "The file becomes too large once aliases are expanded",
        why=(
            "Aliases of aliases make billions of nodes from a few lines. What a config expands to is "
            "counted before it is built."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
a: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
""",
    ),
    relayed(
        "DM010",
        "several-documents",
        "The file holds more than one document",
        why=(
            "Tools differ in which of several documents they read, and the rest is silently ignored. One "
            "file is one config."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
---
version: 1
""",
    ),
    relayed(
        "DM011",
        "empty-file",
        "The file is empty or holds only comments",
        why=(
            "An empty config places nothing. Mostly it is a file that was not saved, or a merge that went "
            "wrong."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
# to do
""",
    ),
    relayed(
        "DM012",
        "root-not-a-mapping",
        "The file's top level is a list or a single value",
        why=(
            "A config is a mapping from keys to values. A missing blank after a colon turns a whole line "
            "into one text, and so does a no-break space."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
- version: 1
- model
""",
    ),
    relayed(
        "DM013",
        "unknown-alias",
        "An alias names no anchor, or the node that it stands in",
        why=(
            "`*name` stands for what `&name` marks earlier in the file. A glob that begins with `*` needs "
            "quotes, or YAML takes it for an alias."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: &size 2GB, 1: *size}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: *size}
""",
    ),
    relayed(
        "DM014",
        "key-not-text",
        "A mapping, a list or an alias stands as a key",
        why=(
            "Keys are names: text, or a number that stands for a device. Two devices with the same budget "
            "are two keys."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {[0, 1]: 2GB}
""",
    ),
    relayed(
        "DM015",
        "yaml-directive",
        "The file begins with `%YAML` or `%TAG`",
        why=(
            "The reader follows the core schema of YAML 1.2 whatever a directive says, so one that asks "
            "for something else would mislead."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
%YAML 1.1
---
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    ),
    relayed(
        "DM016",
        "number-too-long",
        "A number has more digits than any size or index",
        why=(
            "It overflows, or it takes seconds to convert. A key was left out before it, or two numbers "
            "ran together."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20000000000000000000000000000000000000000000}
""",
    ),
    relayed(
        "DM017",
        "merge-without-mapping",
        "`<<` merges something that is not a mapping",
        why="A merge copies the keys of another mapping. A value or a list of values has none.",
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
  <<: {0: 2GB}
  1: 2GB
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
  <<: 2GB
""",
    ),
    relayed(
        "DM018",
        "leading-zero",
        "A number has a leading zero",
        why=(
            "`010` is 8 to YAML 1.1 and 10 to YAML 1.2. What it means depends on the reader, so it is "
            "refused."
        ),
        good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2000000000}
""",
        bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 02000000000}
""",
    ),
)
