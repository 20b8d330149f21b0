r"""Regular expressions of policy packs, matched in time linear in the text whatever the pattern.

Python's `re` tries every way to match, which for `^(a+)+$` are as many as there are subsets of the letters.
Here a pattern becomes a program of a few instructions, and all the places in it where a match may be are
followed through the text at once, so that a letter costs at most one visit of each instruction (Thompson,
"Regular expression search algorithm", 1968).

The dialect is the part of ECMAScript's that JSON Schema recommends: classes, groups, alternatives, repeats,
anchors, `\\d \\w \\s \\b` over ASCII. What no automaton can follow (a reference back, a look ahead or
behind) is refused. There is one engine on every machine, so that a pack says the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LinearPattern", "PatternError", "Steps", "TooCostlyError", "compile_pattern"]

_MOST_INSTRUCTIONS: Final = 2_000
_DEEPEST: Final = 50
_LARGEST_REPEAT: Final = 1_000


class PatternError(ValueError):
    """A pattern that is wrong, or that asks for what is not read here; the message says what and where."""


class TooCostlyError(Exception):
    """The steps that were allowed are used up."""


@dataclass(slots=True)
class Steps:
    """A budget of steps, shared by everything that is evaluated with it."""

    left: int

    def take(self, count: int = 1) -> None:
        """Use some of them.

        Raises:
            TooCostlyError: when there are not so many left.
        """
        self.left -= count
        if self.left < 0:
            raise TooCostlyError


@dataclass(frozen=True, slots=True)
class _Letters:
    """A set of characters: ranges of code points, or everything outside them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def __contains__(self, letter: str) -> bool:
        code = ord(letter)
        return any(first <= code <= last for first, last in self.ranges) is not self.negated


_DIGITS = ((48, 57),)
_WORDS = ((48, 57), (65, 90), (95, 95), (97, 122))
_BLANKS = (
    (9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_CLASSES = {"d": _DIGITS, "w": _WORDS, "s": _BLANKS}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_ENDS_OF_LINES = ((10, 10), (13, 13), (0x2028, 0x2029))
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_WORD = _Letters(_WORDS)

# Instructions: a set of characters to be read, the places to go on at without reading (a split or a jump, in
# which "" is the instruction after it), or the name of an assertion.
_Split = tuple[int, ...]
_Instruction = _Letters | _Split | str
_MATCH: Final = "match"


@dataclass(frozen=True)
class LinearPattern:
    """A compiled pattern."""

    text: str
    program: tuple[_Instruction, ...]

    def search(self, text: str, steps: Steps) -> bool:
        """Return whether the pattern matches anywhere in a text.

        In at most (its instructions) x (the text's length) steps.

        Raises:
            TooCostlyError: when `steps` are used up.
        """
        arrived: list[int] = []
        for position in range(len(text) + 1):
            reading = self._closure([0, *arrived], text, position, steps)
            if reading is None:
                return True
            if position == len(text):
                return False
            letter = text[position]
            arrived = [place + 1 for place in reading if letter in self.program[place]]
        return False

    def _closure(self, places: list[int], text: str, position: int, steps: Steps) -> list[int] | None:
        """Return the instructions that read a character, of those that can be come to from `places`.

        None at a match.
        """
        seen: set[int] = set()
        reading: list[int] = []
        while places:
            place = places.pop()
            if place in seen:
                continue
            seen.add(place)
            steps.take()
            instruction = self.program[place]
            if isinstance(instruction, _Letters):
                reading.append(place)
            elif isinstance(instruction, tuple):
                places += instruction
            elif instruction == _MATCH:
                return None
            elif _holds(instruction, text, position):
                places.append(place + 1)
        return reading


def _holds(assertion: str, text: str, position: int) -> bool:
    if assertion == "^":
        return position == 0
    if assertion == "$":
        return position == len(text)
    before = position > 0 and text[position - 1] in _WORD
    after = position < len(text) and text[position] in _WORD
    return (before is not after) is (assertion == "b")


@lru_cache(maxsize=256)
def compile_pattern(text: str) -> LinearPattern:
    """Compile a pattern.

    Raises:
        PatternError: when it is wrong, too large, or asks for what cannot be matched in linear time.
    """
    parser = _Parser(text)
    program = parser.alternatives(0)
    if parser.place < len(text):
        raise PatternError(f"the ')' at {parser.place + 1} closes nothing")
    return LinearPattern(text, (*program, _MATCH))


@dataclass(slots=True)
class _Parser:
    """A pattern on its way to a program, whose jumps are relative until a part has its place."""

    text: str
    place: int = 0
    size: int = field(default=0)

    def alternatives(self, depth: int) -> tuple[_Instruction, ...]:
        if depth > _DEEPEST:
            raise PatternError(f"groups are nested more than {_DEEPEST} deep")
        found = self._sequence(depth)
        while self._take("|"):
            other = self._sequence(depth)
            # split(first, second) first jump(end) second
            found = self._bounded(
                (
                    (1, len(found) + 2),
                    *_moved(found, 1),
                    (len(found) + len(other) + 2,),
                    *_moved(other, len(found) + 2),
                )
            )
        return found

    def _sequence(self, depth: int) -> tuple[_Instruction, ...]:
        found: tuple[_Instruction, ...] = ()
        while self.place < len(self.text) and self.text[self.place] not in "|)":
            part = self._repeated(depth)
            found = self._bounded((*found, *_moved(part, len(found))))
        return found

    def _repeated(self, depth: int) -> tuple[_Instruction, ...]:
        part = self._atom(depth)
        while self.place < len(self.text) and self.text[self.place] in "*+?{":
            start = self.place
            bounds = self._bounds()
            if bounds is None:
                break
            self._take("?")  # lazy or not, the same texts match
            if len(part) == 1 and isinstance(part[0], str):
                raise PatternError(
                    f"the '{self.text[start]}' at {start + 1} repeats nothing that can be repeated"
                )
            part = self._times(part, *bounds)
            if self.place < len(self.text) and self.text[self.place] in "*+?":
                raise PatternError(f"the '{self.text[self.place]}' at {self.place + 1} repeats a repeat")
        return part

    def _bounds(self) -> tuple[int, int | None] | None:
        """Return the bounds of the repeat here; None where a `{` is a letter like others."""
        sign = self.text[self.place]
        if sign != "{":
            self.place += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        end = self.text.find("}", self.place)
        least, comma, most = self.text[self.place + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not (
            least.isdecimal() and least.isascii() and (not most or (most.isdecimal() and most.isascii()))
        ):
            return None
        if len(least) > 4 or len(most) > 4 or max(int(least), int(most or 0)) > _LARGEST_REPEAT:
            raise PatternError(f"the repeat at {self.place + 1} is more than {_LARGEST_REPEAT:,}")
        if most and int(most) < int(least):
            raise PatternError(f"the repeat at {self.place + 1} has its bounds in the wrong order")
        self.place = end + 1
        return int(least), (int(most) if most else None) if comma else int(least)

    def _times(
        self, part: tuple[_Instruction, ...], least: int, most: int | None
    ) -> tuple[_Instruction, ...]:
        copies = max(least, 1) + (0 if most is None else max(0, most - max(least, 1)))
        if copies * (len(part) + 2) > _MOST_INSTRUCTIONS:
            raise PatternError(_TOO_LARGE)
        found: tuple[_Instruction, ...] = ()
        for _ in range(least):
            found = (*found, *_moved(part, len(found)))
        if most is None:
            # split(part, end) part jump(split)
            loop: tuple[_Instruction, ...] = ((1, len(part) + 2), *_moved(part, 1), (0,))
            return self._bounded((*found, *_moved(loop, len(found))))
        for _ in range(most - least):
            option: tuple[_Instruction, ...] = ((1, len(part) + 1), *_moved(part, 1))
            found = (*found, *_moved(option, len(found)))
        return self._bounded(found)

    def _atom(self, depth: int) -> tuple[_Instruction, ...]:
        start = self.place
        letter = self.text[start]
        self.place += 1
        if letter == "(":
            return self._group(depth, start)
        if letter == "[":
            return (self._class(start),)
        if letter == "\\":
            return (self._escape(start),)
        if letter == ".":
            return (_Letters(_ENDS_OF_LINES, negated=True),)
        if letter in "^$":
            return (letter,)
        if letter in "*+?":
            raise PatternError(f"the '{letter}' at {start + 1} repeats nothing")
        return (_Letters(((ord(letter), ord(letter)),)),)

    def _group(self, depth: int, start: int) -> tuple[_Instruction, ...]:
        if self._take("?") and not self._take(":"):
            kind = self.text[self.place : self.place + 2]
            what = (
                "a look ahead or behind"
                if kind[:1] in {"=", "!"} or kind in {"<=", "<!"}
                else "this kind of group"
            )
            raise PatternError(f"{what} at {start + 1} is not read: it cannot be matched in linear time")
        found = self.alternatives(depth + 1)
        if not self._take(")"):
            raise PatternError(f"the '(' at {start + 1} is not closed")
        return found

    def _escape(self, start: int) -> _Letters | str:
        if self.place == len(self.text):
            raise PatternError("a backslash stands at the end")
        letter = self.text[self.place]
        self.place += 1
        if letter in "bB":
            return letter
        if letter.lower() in _CLASSES:
            return _Letters(_CLASSES[letter.lower()], negated=letter.isupper())
        code = self._code(letter, start)
        return _Letters(((code, code),))

    def _code(self, letter: str, start: int) -> int:
        """Return the code point that an escaped letter stands for; `place` is behind the letter."""
        if letter in _CONTROLS:
            return ord(_CONTROLS[letter])
        if letter in "xu":
            length = 2 if letter == "x" else 4
            digits = self.text[self.place : self.place + length]
            if len(digits) < length or not set(digits) <= _HEXADECIMAL:
                raise PatternError(f"the '\\{letter}' at {start + 1} wants {length} hexadecimal digits")
            self.place += length
            return int(digits, 16)
        if letter.isalnum():
            what = "a reference back" if letter.isdecimal() or letter == "k" else f"the escape '\\{letter}'"
            raise PatternError(f"{what} at {start + 1} is not read")
        return ord(letter)

    def _class(self, start: int) -> _Letters:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            first = self._member(start)
            dash, behind = self.text[self.place : self.place + 1], self.text[self.place + 1 : self.place + 2]
            if isinstance(first, int) and dash == "-" and behind not in {"]", ""}:
                self.place += 1
                last = self._member(start)
                if not isinstance(last, int) or last < first:
                    raise PatternError(f"the class at {start + 1} has a range in the wrong order")
                ranges.append((first, last))
            elif isinstance(first, int):
                ranges.append((first, first))
            else:
                ranges += first
        return _Letters(tuple(ranges), negated)

    def _member(self, start: int) -> int | Sequence[tuple[int, int]]:
        if self.place >= len(self.text):
            raise PatternError(f"the '[' at {start + 1} is not closed")
        letter = self.text[self.place]
        self.place += 1
        if letter != "\\":
            return ord(letter)
        if self.place == len(self.text):
            raise PatternError("a backslash stands at the end")
        letter = self.text[self.place]
        self.place += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter.lower() in _CLASSES:
            return _outside(_CLASSES[letter.lower()])
        return 8 if letter == "b" else self._code(letter, start)

    def _take(self, letter: str) -> bool:
        if self.text[self.place : self.place + 1] != letter:
            return False
        self.place += 1
        return True

    def _bounded(self, program: tuple[_Instruction, ...]) -> tuple[_Instruction, ...]:
        if len(program) > _MOST_INSTRUCTIONS:
            raise PatternError(_TOO_LARGE)
        return program


_TOO_LARGE = f"it is too large: more than {_MOST_INSTRUCTIONS:,} instructions"


def _moved(program: tuple[_Instruction, ...], by: int) -> tuple[_Instruction, ...]:
    """Return the same instructions `by` places later."""
    return tuple(
        tuple(target + by for target in instruction) if isinstance(instruction, tuple) else instruction
        for instruction in program
    )


def _outside(ranges: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    edges = [-1, *(edge for span in ranges for edge in span), 0x110000]
    return [
        (last + 1, first - 1) for last, first in zip(edges[::2], edges[1::2], strict=True) if last + 1 < first
    ]
