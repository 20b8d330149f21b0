"""Did you mean: a near module path.

Found segment by segment so that a long path costs no more than its siblings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.config.values.words import shown, sure_word

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from devmap.inventory.patterns import PathIndex

__all__ = ["explain_miss", "near_path", "near_word", "sure_path"]

_CUTOFF = 0.6
_MOST_CANDIDATES = 512
"""difflib compares with each candidate; a module with more children than this has numbered ones, where it
cannot help."""


def near_word(word: str, known: Collection[str]) -> str | None:
    """Return the known word that is most like `word`, if one is near enough."""
    if len(word) > 200:
        return None
    candidates = list(known)[:_MOST_CANDIDATES]
    by_folded = {candidate.casefold(): candidate for candidate in reversed(candidates)}
    import difflib  # noqa: PLC0415 - most runs find nothing misspelt

    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=_CUTOFF)
    if near:
        return by_folded[near[0]]
    longer = [
        candidate
        for folded, candidate in by_folded.items()
        if len(word) > 2 and folded.startswith(word.casefold())
    ]
    return longer[0] if len(longer) == 1 else None


def near_path(key: str, index: PathIndex) -> str | None:
    """Return the path, range or glob that `key` was meant to be.

    One that names something and differs by misspelt segments or a prefix.
    """
    ranged = _with_brackets(key)
    if ranged is not None and index.match(ranged):
        return ranged
    segments = key.strip().strip(".").split(".")
    without_prefix = ".".join(segments[1:])
    if without_prefix and index.match(without_prefix):
        return without_prefix
    for top in index.names_below(""):
        if index.match(f"{top}.{key}"):
            return f"{top}.{key}"
    mended: list[str] = []
    for segment in segments:
        word = _near_segment(mended, segment, index)
        if word is None:
            return None
        mended.append(word)
    found = ".".join(mended)
    return found if found != key and index.match(found) else None


def sure_path(key: str, index: PathIndex) -> str | None:
    """Return the path, range or glob that `key` must have been meant as, so that a program may write it.

    None where there are several.
    """
    ranged = _with_brackets(key)
    if ranged is not None and index.match(ranged):
        return ranged
    segments = key.split(".")
    if len(segments) > 1 and index.match(".".join(segments[1:])):
        return ".".join(segments[1:])
    prefixed = [f"{top}.{key}" for top in index.names_below("") if index.match(f"{top}.{key}")]
    if prefixed:
        return prefixed[0] if len(prefixed) == 1 else None
    mended: list[str] = []
    for segment in segments:
        word: str | None = segment
        if not index.match(".".join([*mended, segment])):
            parents = index.match(".".join(mended))
            name, bracket, numbers = segment.partition("[")
            word = sure_word(name, index.names_below(parents[0])[:_MOST_CANDIDATES]) if parents else None
            word = None if word is None else word + bracket + numbers
        if word is None:
            return None
        mended.append(word)
    found = ".".join(mended)
    return found if found != key and index.match(found) else None


_RANGE = re.compile(r"\.?\[?(?<![\w])([0-9]+)(?:-|:|\.\.)([0-9]+)\]?(?=\.|$)")
"""`layers.0-3`, `layers.0:3`, `layers.[0-3]`, `layers[0:3]`: a range in another language's words."""


def _with_brackets(key: str) -> str | None:
    """Return the key with its range written as a range; None where it has none.

    >>> _with_brackets("model.layers.0-3.mlp")
    'model.layers[0-3].mlp'
    """
    written, count = _RANGE.subn(r"[\1-\2]", key)
    return written if count else None


def explain_miss(key: str, index: PathIndex) -> str:
    """Return which part of a key names nothing, and what stands in its place: a sentence for help."""
    segments = key.split(".")
    for length in range(1, len(segments) + 1):
        if not index.match(".".join(segments[:length])):
            before_range = ".".join([*segments[: length - 1], segments[length - 1].partition("[")[0]])
            parent = (
                before_range
                if "[" in segments[length - 1] and index.match(before_range)
                else ".".join(segments[: length - 1])
            )
            break
    else:
        return ""
    above = index.match(parent)
    names = index.names_below(above[0]) if above else ()
    where = shown(parent) if parent else "the model"
    if not names:
        return f"{where} has nothing inside"
    return f"{where} has {_listed(names)}"


def _near_segment(above: Sequence[str], segment: str, index: PathIndex) -> str | None:
    if index.match(".".join([*above, segment])):
        return segment
    name, bracket, numbers = segment.partition("[")
    parents = index.match(".".join(above))
    if not parents or "*" in segment or "?" in segment or name.isdecimal():
        return None
    near = near_word(name, index.names_below(parents[0]))
    return None if near is None else near + bracket + numbers


def _listed(names: Sequence[str]) -> str:
    numbers = [int(name) for name in names if name.isdecimal()]
    if len(numbers) == len(names) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    few = ", ".join(names[:6])
    return f"{few} and {len(names) - 6} more" if len(names) > 6 else few
