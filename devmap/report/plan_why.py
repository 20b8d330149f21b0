"""Why a module lives where it does, in sentences or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import format_bytes
from devmap.report.legible import legible
from devmap.report.plan import NARROWEST, shortened, titled
from devmap.report.wrapping import wrap_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.planning.why.deciding_factors import BytesLeft
    from devmap.planning.why.explanation import ExplainedPart, Explanation, WithMore

__all__ = ["render_explanation", "render_explanation_json"]


def render_explanation(explanation: Explanation, *, width: int = 100, color: bool = False) -> str:
    """Return the text of an explanation, no line longer than `width` (at least 60), ending in a line end."""
    explanation = legible(explanation)
    width = max(width, NARROWEST)
    lines = [
        titled(shortened(_subject(explanation), width), color=color),
        *_paragraph(_weight(explanation), width),
    ]
    if not explanation.fits:
        lines += _without_plan(explanation, width, color=color)
    for part in explanation.parts:
        lines += ["", *_part(part, explanation, width, color=color)]
    if explanation.more_parts:
        lines += ["", f"and {explanation.more_parts:,} more runs; ask for one of its modules"]
    if explanation.with_more:
        more = format_bytes(explanation.with_more[0].more_bytes)
        lines += ["", titled(f"with {more} more, tried one device at a time", color=color)]
        helping = [one for one in explanation.with_more if _changes_something(one, explanation)]
        if not helping:
            nothing = "nothing moves" if explanation.fits else "still no plan fits"
            lines += _paragraph(f"on any of them {nothing}.", width)
        for one in helping:
            lines += _paragraph(f"on {device_name(one.device)}: {_outcome(one, explanation)}", width)
    return "\n".join(lines) + "\n"


def render_explanation_json(explanation: Explanation) -> str:
    """Return the explanation as JSON, ending in a line end; sizes in bytes."""
    document = {
        "version": 1,
        "kind": "devmap why",
        "path": explanation.path,
        "class": explanation.class_name,
        "placed_with": explanation.placed_with,
        "weights": explanation.weight_bytes,
        "buffers": explanation.buffer_bytes,
        "charges": [
            {"what": charge.what, "bytes": charge.nbytes, "arithmetic": charge.arithmetic}
            for charge in explanation.charges
        ],
        "strategy": explanation.strategy,
        "fits": explanation.fits,
        "parts": [_part_document(part) for part in explanation.parts],
        "with_more": [
            {
                "device": one.device.plain,
                "more": one.more_bytes,
                "fits": one.fits,
                "moves": one.moves,
                "others_moved": one.others_moved,
                "streamed_bytes": one.streamed_bytes,
                "parts": [_part_document(part) for part in one.parts],
            }
            for one in explanation.with_more
        ],
        "streamed_bytes": explanation.streamed_bytes,
        "problem": explanation.problem,
        "left": _left_document(explanation.left),
        "changes": list(explanation.changes),
    }
    return json.dumps(document, indent=2) + "\n"


def _subject(explanation: Explanation) -> str:
    kind = explanation.class_name or "tensor"
    return f"{explanation.path or 'the whole model'} ({kind})"


def _weight(explanation: Explanation) -> str:
    buffers = f", {format_bytes(explanation.buffer_bytes)} of it buffers" if explanation.buffer_bytes else ""
    text = f"It weighs {format_bytes(explanation.weight_bytes)}{buffers}."
    if explanation.placed_with:
        text += (
            f" It is placed with '{explanation.placed_with}' ({explanation.placed_class}), "
            "which goes whole to one device."
        )
    if explanation.charges:
        whom = f"'{explanation.placed_with}'" if explanation.placed_with else "it"
        listed = ", ".join(
            f"{format_bytes(charge.nbytes)} of {charge.what}" for charge in explanation.charges
        )
        text += f" For {whom} the workload keeps {listed}."
    return text


def _part(part: ExplainedPart, explanation: Explanation, width: int, *, color: bool) -> Iterator[str]:
    whole = len(explanation.parts) == 1 and not explanation.more_parts
    it = (
        "It"
        if whole
        else f"'{part.first}'"
        if part.first == part.last
        else f"'{part.first}' to '{part.last}' ({format_bytes(part.nbytes)})"
    )
    runs = (
        ("is" if whole or part.first == part.last else "are") + " computed there"
        if part.home == part.executes_on
        else f"runs on {device_name(part.executes_on)}"
    )
    verb = "lives" if whole or part.first == part.last else "live"
    yield from (
        titled(line, color=color)
        for line in wrap_words(f"{it} {verb} on {device_name(part.home)} and {runs}", width, whole=False)
    )
    whose = "its turn" if part.first == part.last else f"the turn of '{part.first}'"
    yield from _paragraph(f"When {whose} came:", width)
    yield from _left(part.left)
    for factor in part.factors:
        yield from _paragraph(factor.sentence, width)


def _left(left: Sequence[BytesLeft]) -> Iterator[str]:
    names = max((len(device_name(one.device)) for one in left), default=0)
    for one in left:
        room = "no limit" if one.left_bytes is None else f"{format_bytes(one.left_bytes)} left"
        verdict = (
            "fits"
            if one.fits
            else "does not fit"
            if one.left_bytes is None or one.needed_bytes > one.left_bytes
            else "not allowed"
        )
        yield (
            f"    {device_name(one.device):<{names}}  {room:>14}, "
            f"{format_bytes(one.needed_bytes):>9} needed: {verdict}"
        )


def _without_plan(explanation: Explanation, width: int, *, color: bool) -> Iterator[str]:
    yield ""
    yield titled("It has no place: there is no plan", color=color)
    yield from _paragraph(f"{explanation.problem[:1].upper()}{explanation.problem[1:]}.", width)
    which = (
        "It is among what found no place."
        if explanation.homeless
        else "It is not what found no place, but one plan places all or nothing."
    )
    yield from _paragraph(
        f"{which} What each device had left when the first of that was to be placed:"
        if explanation.left
        else which,
        width,
    )
    yield from _left(explanation.left)
    for change in explanation.changes:
        yield from _paragraph(f"fits with: {change}", width)


def _changes_something(one: WithMore, explanation: Explanation) -> bool:
    """Return whether more bytes on a device are worth a line.

    Something fits, moves or streams otherwise with them.
    """
    if not explanation.fits or not one.fits:
        return one.fits or explanation.fits
    return one.moves or bool(one.others_moved) or one.streamed_bytes != explanation.streamed_bytes


def _outcome(one: WithMore, explanation: Explanation) -> str:
    if not one.fits:
        return "still no plan fits." if not explanation.fits else "no plan is found then."
    if not explanation.fits:
        return f"everything fits; it lives on {_places(one.parts)}."
    streamed = ""
    if one.streamed_bytes != explanation.streamed_bytes:
        streamed = (
            f"; a pass streams {format_bytes(one.streamed_bytes)} instead of "
            f"{format_bytes(explanation.streamed_bytes)}"
        )
    others = (
        f"{one.others_moved:,} other module{'s' if one.others_moved != 1 else ''} "
        f"move{'s' if one.others_moved == 1 else ''}"
    )
    if one.moves:
        return f"it lives on {_places(one.parts)}{f'; {others}' if one.others_moved else ''}{streamed}."
    return f"it stays where it is; {others}{streamed}." if one.others_moved else f"nothing moves{streamed}."


def _places(parts: Sequence[ExplainedPart]) -> str:
    """Devices in the model's order: `device 0, then cpu (runs on device 0)`; a few of them."""
    named = []
    for part in parts[:4]:
        runs = "" if part.home == part.executes_on else f" (runs on {device_name(part.executes_on)})"
        span = f" to '{part.last}'" if len(parts) > 1 else ""
        named.append(f"{device_name(part.home)}{runs}{span}")
    return ", then ".join(named) + (f", and {len(parts) - 4} more runs" if len(parts) > 4 else "")


def _paragraph(text: str, width: int) -> list[str]:
    return wrap_words(f"  {text}", width, hanging=2, whole=False)


def _part_document(part: ExplainedPart) -> dict[str, object]:
    return {
        "first": part.first,
        "last": part.last,
        "home": part.home.plain,
        "executes_on": part.executes_on.plain,
        "bytes": part.nbytes,
        "left": _left_document(part.left),
        "binds": [
            {
                "kind": factor.kind,
                "device": None if factor.device is None else factor.device.plain,
                "sentence": factor.sentence,
            }
            for factor in part.factors
        ],
    }


def _left_document(left: Sequence[BytesLeft]) -> list[dict[str, object]]:
    return [
        {"device": one.device.plain, "left": one.left_bytes, "needed": one.needed_bytes, "fits": one.fits}
        for one in left
    ]
