"""From the names and tensors of a checkpoint to those of the running model.

The rules are transformers' own, as data: renamings (regular expressions, each applied in turn) and converters
(at most one applies to a name; it gathers several stored tensors, or cuts one). See
`transformers.core_model_loading`, 5.x.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from devmap.inventory.conversions.assembly import Assembled, AssemblyError, pieces_of, stored
from devmap.inventory.conversions.operations import Operation, Setting, run_operations
from devmap.inventory.stored.mapping import Mismatch, WeightMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devmap.inventory.stored.header import StoredTensor
    from devmap.inventory.stored.mapping import Piece

__all__ = ["ConversionRules", "Converted", "NameConversion", "convert", "mapping_of"]


@dataclass(frozen=True)
class NameConversion:
    r"""One rule: what names it applies to, what they become, and what is done with the tensors.

    `sources` are regular expressions in which `*.` stands for any stretch of a name, `targets` replacements
    in which `\1` is the group of the source. A rule without `operations` renames. `scope` is the path of the
    submodel that the rule is of.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: tuple[Operation, ...] = ()
    scope: str | None = None
    is_group: bool = False
    """Whether each source has a target of its own, and all wait for the first: `norm0` to `norm1` and `norm1`
    to `norm2` rename nothing in a checkpoint that has no `norm0`."""
    offset: int = 0
    """What is added to the number that the group of the source holds."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any], scope: str | None = None) -> NameConversion:
        """Return the rule that a row of the table writes down."""
        return cls(
            tuple(row["from"]),
            tuple(row["to"]),
            tuple((str(name), tuple(options)) for name, *options in row.get("do", ())),
            scope,
            bool(row.get("group")),
            int(row.get("offset", 0)),
        )

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All sources in one expression, the longest first; a source ends at the end of a word."""
        branches: list[str] = []
        for number, source in sorted(enumerate(self.sources), key=lambda item: -len(item[1])):
            body = source.replace("*.", r".*\.")
            if re.search(r"[a-zA-Z0-9]$", body):
                body += r"(?!\w)"
            branches.append(f"(?P<g{number}>{body})")
        return re.compile("|".join(branches))

    def apply(self, name: str, base_model_prefix: str) -> tuple[str, int | None]:
        """Return the new name and the number of the source that matched.

        The old name and None where none did.
        """
        prefix = ""
        if self.scope is not None:
            scope = f"{self.scope}." if self.scope else ""
            base = f"{base_model_prefix}." if base_model_prefix else ""
            prefix = base + scope if name.startswith(base + scope) else scope
            if not name.startswith(prefix):
                return name, None
        rest = name[len(prefix) :]
        match = self.pattern.search(rest)
        if match is None:
            return name, None
        group = next(group for group, value in match.groupdict().items() if value is not None)
        number = int(group[1:])
        replacement = self.targets[number if self.is_group else 0]
        if "\\" in replacement:
            replacement = self._filled(replacement, match, self.pattern.groupindex[group])
        return prefix + rest.replace(match[0], replacement, 1), number

    def _filled(self, replacement: str, match: re.Match[str], first: int) -> str:
        if self.offset:
            return replacement.replace(r"\1", str(int(match.group(first + 1)) + self.offset))
        return re.sub(r"\\(\d+)", lambda each: match.group(first + int(each[1])) or "", replacement)

    def is_active(self, names: Iterable[str]) -> bool:
        """Return whether a group of renamings has what it waits for among these names."""
        return not self.is_group or any(self.apply(name, "")[1] == 0 for name in names)


@dataclass(frozen=True)
class ConversionRules:
    """How one class of model reads a checkpoint."""

    conversions: tuple[NameConversion, ...] = ()
    base_model_prefix: str = ""
    ignored: tuple[str, ...] = ()
    """Expressions for names that a checkpoint may hold and the model does not want."""

    @cached_property
    def ignored_pattern(self) -> re.Pattern[str]:
        """All of `ignored` in one expression."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.ignored) or r"(?!)")

    def awake(self, names: Iterable[str]) -> ConversionRules:
        """Return the rules that these stored names leave in force."""
        kept = tuple(rule for rule in self.conversions if rule.is_active(names))
        return self if len(kept) == len(self.conversions) else replace(self, conversions=kept)

    def rename(self, name: str, knows: Callable[[str], bool]) -> tuple[str, NameConversion | None, int]:
        """Return the model's name for a stored one.

        And the converter that has a part in it with the number of its source.
        """
        renamed, converter, source = name, None, 0
        for conversion in self.conversions:
            if not conversion.operations:
                renamed, _ = conversion.apply(renamed, self.base_model_prefix)
        for conversion in self.conversions:
            if conversion.operations:
                renamed, matched = conversion.apply(renamed, self.base_model_prefix)
                if matched is not None:
                    converter, source = conversion, matched
                    break
        renamed = self._repaired(renamed, knows)
        if not knows(renamed):
            plain = self._repaired(name, knows)
            if knows(plain):
                return plain, None, 0
        return renamed, converter, source

    def _repaired(self, name: str, knows: Callable[[str], bool]) -> str:
        prefix = self.base_model_prefix
        if not prefix:
            return name
        if name.startswith(f"{prefix}.") and knows(name[len(prefix) + 1 :]):
            return name[len(prefix) + 1 :]
        return f"{prefix}.{name}" if knows(f"{prefix}.{name}") else name


@dataclass
class Converted:
    """What the stored tensors become."""

    tensors: dict[str, Assembled] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(
    held: Mapping[str, StoredTensor],
    rules: ConversionRules,
    *,
    knows: Callable[[str], bool],
    is_computed: Callable[[str], bool] = lambda _: False,
    shape_of: Callable[[str], tuple[int, ...] | None] = lambda _: None,
    figures: Mapping[str, object] | None = None,
) -> Converted:
    """Bring stored tensors to the model's names and shapes.

    `knows` says whether the model has a tensor of a name that it loads, `is_computed` whether it computes it
    instead, `shape_of` gives its shape where that is known, `figures` is the config. n log n in the number of
    tensors.
    """
    found = Converted()
    rules = rules.awake(held)
    gathered: dict[tuple[str, int], tuple[NameConversion, dict[int, list[StoredTensor]]]] = {}
    """By the new name and the identity of the rule: its options may be lists, which no hash takes."""
    segment, known = (
        cache(_segment),
        cache(lambda name: knows(name.replace("*", "0"))),
    )  # 10^5 names have a few hundred segments, and all experts of a layer one new name
    for name in sorted(held, key=lambda name: [segment(part) for part in name.split(".")]):
        renamed, converter, source = rules.rename(name, known)
        if not known(renamed):
            wanted_nowhere = is_computed(renamed) or rules.ignored_pattern.search(renamed) is not None
            (found.ignored if wanted_nowhere else found.unmapped).append(name)
        elif converter is not None:
            sources = gathered.setdefault((renamed, id(converter)), (converter, {}))[1]
            sources.setdefault(source, []).append(held[name])
        elif renamed in found.tensors:
            found.unmapped.append(name)
        else:
            found.tensors[renamed] = stored(held[name])
    for (renamed, _), (converter, sources) in gathered.items():
        _gather(renamed, converter, sources, found, Setting(shape_of, figures or {}))
    return found


def _gather(
    renamed: str,
    converter: NameConversion,
    sources: dict[int, list[StoredTensor]],
    found: Converted,
    setting: Setting,
) -> None:
    names = [_expanded(renamed, converter, target) for target in converter.targets]
    try:
        made = run_operations(
            converter.operations,
            {converter.sources[n]: [stored(tensor) for tensor in sources[n]] for n in sorted(sources)},
            names,
            setting,
        )
    except AssemblyError as error:
        found.unmapped += [tensor.name for tensors in sources.values() for tensor in tensors]
        found.notes.append(f"'{renamed}' cannot be put together: {error}")
        return
    found.tensors.update(made)


def _expanded(renamed: str, converter: NameConversion, target: str) -> str:
    r"""Return the name of another target where the first one's stands.

    `\1` in it is what the first has there.
    """
    first = converter.targets[0]
    if "\\" not in first:
        return renamed.replace(first, target, 1)
    pattern = re.escape(first).replace(re.escape(r"\1"), "(.+?)")
    return re.sub(
        pattern + r"(?!.*" + pattern + ")", lambda match: target.replace(r"\1", match[1]), renamed, count=1
    )


def mapping_of(
    converted: Converted,
    names: Iterable[str],
    *,
    owner: Mapping[str, str],
    shape_of: Callable[[str], tuple[int, ...] | None] = lambda _: None,
) -> WeightMapping:
    """Return the pieces of each of these tensors.

    A tied name without a stored tensor takes those of its group.
    """
    held_by_owner = {owner.get(name, name): tensor for name, tensor in reversed(converted.tensors.items())}
    pieces: dict[str, tuple[Piece, ...]] = {}
    missing: list[str] = []
    mismatched: list[Mismatch] = []
    for name in names:
        tensor = converted.tensors.get(name) or held_by_owner.get(owner.get(name, name))
        expected = shape_of(name)
        if tensor is None:
            missing.append(name)
        elif expected is not None and expected != tensor.shape:
            mismatched.append(Mismatch(name, expected, tensor.shape, pieces_of(tensor)))
        else:
            pieces[name] = pieces_of(tensor)
    return WeightMapping(
        pieces, tuple(converted.unmapped), tuple(converted.ignored), tuple(missing), tuple(mismatched)
    )


_DIGITS_AT_END = re.compile(r"[0-9]+\Z")


def _segment(part: str) -> tuple[int, str, int]:
    """Return the key of a name's segment that puts experts in the order of their numbers.

    Transformers' order of a state dict.
    """
    if part.isdecimal():
        return 0, "", int(part)
    digits = _DIGITS_AT_END.search(part)
    return (1, part[: digits.start()], int(digits[0])) if digits else (1, part, -1)
