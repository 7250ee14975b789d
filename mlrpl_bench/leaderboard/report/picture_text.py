"""Names as a picture can show them: short, told apart, and in letters that the font has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlrpl_bench.utils.tables import on_one_line

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that pictures are alike on every machine."""

LACKING = "□"
"""Stands for a letter that the font lacks; a question mark means a hidden label in the contact sheet."""


class PictureNames(NamedTuple):
    """These are names for a picture's axes.

    Attributes:
        names: one for each that was given; dollar signs are escaped, as matplotlib would read a formula.
        note: what was done to them, or "" where nothing was.
    """

    names: list[str]
    note: str


def picture_names(names: Sequence[str], longest: int = 18) -> PictureNames:
    """Return names that fit beside a bar; those that would look alike are numbered by their place.

    >>> picture_names(["cat", "a long name of one category", "a long name of another category"]).names
    ['cat', 'a long name…tegory #2', 'a long name…tegory #3']
    """
    drawn = [drawable(name) for name in names]
    short = [_shortened_inside(name, longest) for name in drawn]
    times = Counter(short)
    alike = [times[name] > 1 for name in short]
    notes = []
    if any(on_one_line(name) != one for name, one in zip(names, drawn, strict=True)):
        notes.append(f"{LACKING} stands for what the font lacks")
    if short != drawn:
        notes.append("long names are shortened (…)")
    if any(alike):
        notes.append("#3 is the third category")
    numbered = [
        f"{name} #{place}" if twin else name for place, (name, twin) in enumerate(zip(short, alike, strict=True), 1)
    ]
    return PictureNames([name.replace("$", r"\$") for name in numbered], "; ".join(notes))


def shortened(name: str, longest: int = 18) -> str:
    """Return a name that fits beside a bar, on one line; dollar signs would start a formula.

    >>> shortened("a very long name of a category")
    'a very long name …'
    """
    name = drawable(name)
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")


def drawable(text: str) -> str:
    """Return text on one line, with `LACKING` for each letter that the font lacks.

    >>> drawable("γάτα 猫")
    'γάτα □'
    """
    return "".join(letter if _has_glyph(letter) else LACKING for letter in on_one_line(text))


def font_file() -> Path:
    """Return the font's file."""
    from matplotlib import font_manager

    return Path(font_manager.findfont(FONT))


@cache
def _has_glyph(letter: str) -> bool:
    return bool(_font().get_char_index(ord(letter)))


@cache
def _font() -> FT2Font:
    from matplotlib import font_manager

    return font_manager.get_font(str(font_file()))


def _shortened_inside(name: str, longest: int) -> str:
    """Return the beginning and the end, as the end often tells names apart."""
    if len(name) <= longest:
        return name
    tail = (longest - 1) * 2 // 5
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"
