"""The parser's complaints in our words, each at the place where a person has to change something."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.config.yaml.faults import Edit, Fault

if TYPE_CHECKING:
    import yaml

    from devmap.config.yaml.source import Source

__all__ = ["DEVICE_WITH_BLANK", "syntax_fault"]

DEVICE_WITH_BLANK = re.compile(r"\b(cuda|xpu|hip|npu|hpu|mps|xla|sim):[ \t]+([0-9]{1,6})\b")
"""`cuda: 0` where `cuda:0` was meant."""

_LONGEST_KEY = 1024
_MISSING_BLANK = re.compile(r"(?:^|[\s{,-])([^\s:#'\"\[\]{},]+):(?=[^\s:/])")
_PATTERN_LIKE = re.compile(r"[^\s,\[\]{}#]+")
_SPECIAL = "*&!%@`|>,]}"

_UNCLOSED = {
    "while scanning a quoted scalar": "the quote that opens here is never closed",
    "while parsing a flow sequence": "the list that opens here needs a ',' or its ']'",
    "while parsing a flow mapping": "the mapping that opens here needs a ',' or its '}'",
}

_WORDS = {
    "found unknown escape character": (
        "an unknown escape sequence",
        "use single quotes, in which a backslash is only a backslash",
    ),
    "found invalid Unicode character escape code": (
        "an escape sequence for no valid character",
        "write the character itself",
    ),
    "did not find expected hexdecimal number": (
        "an escape sequence without its hexadecimal digits",
        "write the character itself",
    ),
    "did not find expected '-' indicator": (
        "a key where the next '- ' of a list was expected",
        "indent the list further than its key",
    ),
    "block sequence entries are not allowed in this context": (
        "a list cannot begin here",
        "start it on a line of its own",
    ),
    "mapping keys are not allowed in this context": (
        "a key cannot begin here",
        "write it on a line of its own",
    ),
    "did not find expected <document start>": (
        "more text after the end of the document ('...')",
        "remove the '...' or what follows it",
    ),
    "found incompatible YAML document": ("a YAML version that is not read", "remove the %YAML line"),
    "did not find expected node content": (
        "a value is missing here",
        "a list or mapping that was opened is not closed",
    ),
    "found undefined tag handle": (
        "an undefined tag",
        "remove it, or quote the value if it is text",
    ),
    "found an indentation indicator equal to 0": (
        "a block of text cannot have indentation 0",
        "write '|' alone",
    ),
}


def syntax_fault(error: yaml.YAMLError, source: Source) -> Fault:
    """Return the fault for what the parser raised.

    The parser knows no more than one place and one complaint.
    """
    mark, context_mark = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem, context = (
        str(getattr(error, "problem", None) or "text that is not YAML"),
        str(getattr(error, "context", None) or ""),
    )
    line, column = _place(mark, source)
    opened_line, opened_column = _place(context_mark, source) if context_mark else (line, column)
    found = (
        _tab(source, line)
        or _no_break_space(source, opened_line, line)
        or _template(source, line)
        or _special(source, line, column, problem)
        or (
            _special(source, opened_line, opened_column, context)
            if context.startswith("while scanning a")
            else None
        )
        or _device(source, line, column)
        or _colon(source, line, column, opened_line, problem)
    )
    if found is not None:
        return found
    before, after = source.line(line)[: column - 1], source.line(line)[column - 1 :]
    if context.startswith("while parsing a flow") and before[-1:] in {"'", '"'} and after[:1].isalnum():
        return _expected_key(source, line, column)
    if context in _UNCLOSED and not problem.startswith("found unexpected document indicator"):
        return Fault("DM004", _UNCLOSED[context], source.stretch(opened_line, opened_column), help="close it")
    if problem == "did not find expected key":
        return _expected_key(source, line, column)
    words, hint = _WORDS.get(problem, (problem, ""))
    return Fault("DM004", f"not YAML: {words}", source.stretch(line, column), help=hint)


def _place(mark: object, source: Source) -> tuple[int, int]:
    line, column = getattr(mark, "line", 0) + 1, getattr(mark, "column", 0) + 1
    if line > len(source.lines) or (line > 1 and column == 1 and not source.line(line)):
        # Past the last line that has text: the end of that line is where a person looks.
        line = max(
            (number for number in range(1, min(line, len(source.lines)) + 1) if source.line(number).strip()),
            default=1,
        )
        column = len(source.line(line).rstrip()) + 1
    return line, column


def _tab(source: Source, line: int) -> Fault | None:
    text = source.line(line)
    indent = text[: len(text) - len(text.lstrip(" \t"))]
    if "\t" not in indent:
        return None
    return Fault(
        "DM005",
        "a tab cannot indent YAML",
        source.stretch(line, indent.index("\t") + 1),
        help="indent with blanks",
    )


def _no_break_space(source: Source, first: int, last: int) -> Fault | None:
    for line in (last, first, last - 1):
        column = source.line(line).find("\u00a0") + 1
        if column:
            message = "a no-break space (U+00A0), which YAML reads as a letter"
            position = source.stretch(line, column)
            return Fault(
                "DM004",
                message,
                position,
                help="use a plain space",
                edit=Edit(position, " ", "a plain blank"),
            )
    return None


def _template(source: Source, line: int) -> Fault | None:
    text = source.line(line)
    for braces in ("{{", "{%"):
        column = text.find(braces) + 1
        if column and (
            braces == "{{" or "%}" in text
        ):  # `{%` alone is a mapping with a key that needs quotes
            hint = "a config is plain YAML: use 'profiles', or put quotes around it if it is text"
            return Fault("DM004", "template braces are not read", source.stretch(line, column, 2), help=hint)
    return None


def _special(source: Source, line: int, column: int, problem: str) -> Fault | None:
    text = source.line(line)
    first = text[column - 1 : column]
    if not first or first not in _SPECIAL:
        return None
    wanted = ("start any token", "alias", "anchor", "tag", "directive", "node content")
    if not any(word in problem for word in wanted):
        return None
    word = _PATTERN_LIKE.match(text, column - 1)
    value = word[0] if word else first
    value = value.removesuffix(":") if len(value) > 1 else value
    position = source.stretch(line, column, len(value))
    edit = Edit(position, f"'{value}'", "quote it") if first not in ",]}" and "'" not in value else None
    hint = (
        f"put quotes around it: {shown(value)}"
        if edit
        else "remove it, or put quotes around it if it is text"
    )
    return Fault(
        "DM004", f"a value without quotes cannot begin with '{first}'", position, help=hint, edit=edit
    )


def _device(source: Source, line: int, column: int) -> Fault | None:
    for match in DEVICE_WITH_BLANK.finditer(source.line(line)):
        if match.start() < column <= match.end() + 1:
            name = f"{match[1]}:{match[2]}"
            position = source.stretch(line, match.start() + 1, len(match[0]))
            edit = Edit(position, name, f"write {name}")
            return Fault(
                "DM004",
                f"'{match[0]}' is a key and a value",
                position,
                help=f"write {name} without the space",
                edit=edit,
            )
    return None


def _colon(source: Source, line: int, column: int, opened_line: int, problem: str) -> Fault | None:
    second_colon = "mapping values are not allowed" in problem
    if not second_colon and "could not find expected ':'" not in problem:
        return None
    key = source.line(line if second_colon else opened_line)
    if len(key.partition(": ")[0].strip()) > _LONGEST_KEY or len(key[: column - 1].strip()) >= _LONGEST_KEY:
        where = source.stretch(line if second_colon else opened_line, len(key) - len(key.lstrip()) + 1)
        return Fault(
            "DM004",
            f"a key of more than {_LONGEST_KEY:,} characters",
            where,
            help="shorten it: it is longer than any module path",
        )
    for candidate in dict.fromkeys((opened_line, line, line - 1)):
        text = source.line(candidate)
        match = _MISSING_BLANK.search(text)
        if match and (": " not in text[: match.start(1)] or candidate != line):
            position = source.stretch(candidate, match.start(1) + 1, len(match[0].strip(" {,-")))
            edit = Edit(source.stretch(candidate, match.end() + 1, 0), " ", "a space after the colon")
            return Fault(
                "DM004",
                f"no space after the colon of '{match[1]}:'",
                position,
                help=f"write '{match[1]}: ...'",
                edit=edit,
            )
    if not second_colon:
        text = source.line(opened_line)
        start = len(text) - len(text.lstrip())
        return Fault(
            "DM004",
            "a line with neither a key nor a value",
            source.stretch(opened_line, start + 1, len(text.strip())),
            help="write 'key: value'",
        )
    before = source.line(line)[: column - 1]
    if ": " in before:
        hint = (
            "a value that contains ': ' needs quotes; a nested mapping starts on a line of its own, indented"
        )
        return Fault("DM004", "a second ': ' on one line", source.stretch(line, column), help=hint)
    hint = "keys of one mapping start in one column; the line before this one has a value already"
    start = len(before) - len(before.lstrip())
    return Fault(
        "DM004",
        "this line is indented too far",
        source.stretch(line, start + 1, len(before.strip())),
        help=hint,
    )


def _expected_key(source: Source, line: int, column: int) -> Fault:
    text = source.line(line)
    before = text[: column - 1]
    if before.strip() and before.rstrip()[-1] in "'\"":
        hint = "put the whole value in quotes; a quote inside single quotes is written twice"
        return Fault(
            "DM004",
            "text after a closing quote",
            source.stretch(line, column, len(text.rstrip()) - column + 1),
            help=hint,
        )
    if text.lstrip().startswith("- "):
        return Fault(
            "DM004",
            "an item of a list among the keys of a mapping",
            source.stretch(line, column),
            help="indent it below its key",
        )
    hint = "keys of one mapping start in one column"
    return Fault(
        "DM004", "a line that is indented unlike the lines before it", source.stretch(line, column), help=hint
    )
