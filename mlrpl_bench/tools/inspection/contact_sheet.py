"""This module draws images on a sheet, with the labels as a method sees them at a known ratio, and those hidden."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN, hide, known_mask
from mlrpl_bench.leaderboard.report.picture_text import LACKING, drawable, font_file
from mlrpl_bench.utils.randomness import seed_of
from mlrpl_bench.utils.tables import on_one_line

COLUMNS = 4
SIDE = 300
"""This is the side in pixels of the square in which an image is shown."""
GAP, LINE, TEXT_SIZE = 14, 17, 13
MANY = 24
"""Absent and hidden absent labels are counted instead of named from this many categories on."""

GROUND, BLACK, GREEN, ORANGE, GREY = "#ffffff", "#222222", "#1a7f37", "#c2570c", "#9aa0a6"


class Word(NamedTuple):
    """A word is a label's name on the sheet."""

    text: str
    colour: str
    struck: bool = False


LEGEND = (
    Word("known present", GREEN),
    Word("present, hidden?", ORANGE),
    Word("known absent", GREY, struck=True),
    Word("absent, hidden?", GREY),
)


def draw(split: Split, title: str, ratio: float, how_many: int = 12, seed: int = 0, mask_seed: int = 0) -> bytes:
    """Draw a sheet as a PNG.

    Args:
        ratio: known share of the labels; the mask is the one that a training split of these labels gets.
        how_many: images, drawn by `seed`.

    Raises:
        UserError: an image cannot be decoded.
    """
    mask_NC = known_mask(split.labels_NC.shape, ratio, mask_seed, labels_NC=split.labels_NC)
    rows = chosen_rows(len(split), how_many, seed)
    words = [words_of(split.labels_NC[row], mask_NC[row], split.categories) for row in rows]
    return draw_tiles(split, title, LEGEND, rows, words)


def draw_tiles(
    split: Split, title: str, legend: Sequence[Word], rows: Sequence[int], words: Sequence[list[Word]]
) -> bytes:
    """Draw a sheet of some images, each with words below it, as a PNG.

    Args:
        legend: what the words mean, below the title.
        rows: of the images, one or more; an image may be shown several times.
        words: of each image.

    Raises:
        UserError: an image cannot be decoded.
    """
    width = GAP + min(COLUMNS, len(rows)) * (SIDE + GAP)
    legend = [*legend, *_explained([title, *(word.text for one in words for word in one)])]
    title_lines = _lines([Word(title, BLACK)], width - 2 * GAP) + _lines(legend, width - 2 * GAP)
    tiles = [_tile(split, row, one) for row, one in zip(rows, words, strict=True)]
    return _png(_sheet(title_lines, tiles, width))


def _explained(texts: Sequence[str]) -> list[Word]:
    """Return what the legend says besides, where a text has letters that the font lacks."""
    lacks = any(drawable(text) != on_one_line(text) for text in texts)
    return [Word(f"{LACKING} stands for what the font lacks", BLACK)] if lacks else []


def chosen_rows(num_rows: int, how_many: int, seed: int) -> list[int]:
    """Draw rows without repetition and return them in order; all of them if there are fewer."""
    rows = np.random.default_rng(seed_of("contact sheet", seed)).permutation(num_rows)[:how_many]
    return sorted(rows.tolist())


def words_of(labels_C: NDArray[np.int8], mask_C: NDArray[np.bool_], categories: Sequence[str]) -> list[Word]:
    """Name an image's labels: known present, hidden present, then the absent ones, named or (of many) counted.

    Args:
        labels_C: all labels that were given; entries that are UNKNOWN here are counted as never given.
        mask_C: which are known.
    """
    seen_C = hide(labels_C, mask_C)
    present = [Word(categories[c], GREEN) for c in np.flatnonzero(seen_C == PRESENT).tolist()]
    hidden = [Word(f"{categories[c]}?", ORANGE) for c in np.flatnonzero((labels_C == PRESENT) & ~mask_C).tolist()]
    absent = [categories[c] for c in np.flatnonzero(seen_C == ABSENT).tolist()]
    hidden_absent = [categories[c] for c in np.flatnonzero((labels_C == ABSENT) & ~mask_C).tolist()]
    never_given = int((labels_C == UNKNOWN).sum())
    if len(categories) < MANY:
        others = [Word(name, GREY, struck=True) for name in absent] + [Word(f"{name}?", GREY) for name in hidden_absent]
    else:
        others = [Word(f"{len(absent)} known absent", GREY), Word(f"{len(hidden_absent)} absent, hidden", GREY)]
    if never_given:
        others.append(Word(f"{never_given} never given", BLACK))
    return present + hidden + others


def _tile(split: Split, row: int, words: list[Word]) -> Image.Image:
    """Draw an image, its id and its labels, as high as they need."""
    lines = [[Word(_shortened(drawable(_caption(split, row)), SIDE), BLACK)], *_lines(words, SIDE)]
    tile = Image.new("RGB", (SIDE, SIDE + 6 + LINE * len(lines)), GROUND)
    image = decode(split.image_paths[row])
    scale = SIDE / max(image.size)
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    image = image.resize(size, Image.Resampling.BICUBIC)
    tile.paste("#f1f3f5", (0, 0, SIDE, SIDE))
    tile.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    _write(tile, lines, 0, SIDE + 4)
    return tile


def _caption(split: Split, row: int) -> str:
    """Name an image by its id and its file, or by the id alone where that is the file's path."""
    name, file = str(split.ids[row]), split.image_paths[row].name
    return name if name.endswith(file) else f"{name}  {file}"


def _sheet(title: list[list[Word]], tiles: list[Image.Image], width: int) -> Image.Image:
    """Put tiles into rows, each row as high as its highest."""
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    top = 2 * GAP + LINE * len(title)
    height = top + sum(max(tile.height for tile in row) + GAP for row in rows)
    sheet = Image.new("RGB", (width, height), GROUND)
    _write(sheet, title, GAP, GAP)
    for row in rows:
        for place, tile in enumerate(row):
            sheet.paste(tile, (GAP + place * (SIDE + GAP), top))
        top += max(tile.height for tile in row) + GAP
    return sheet


def _lines(words: Sequence[Word], width: int) -> list[list[Word]]:
    """Put words into lines that are not wider than `width` pixels; a word wider than that is cut."""
    lines: list[list[Word]] = [[]]
    used = 0.0
    for word in words:
        word = word._replace(text=_shortened(drawable(word.text), width))
        length = _length(word.text)
        if lines[-1] and used + length > width:
            lines.append([])
            used = 0.0
        lines[-1].append(word)
        used += length + _between()
    return lines


def _write(sheet: Image.Image, lines: Sequence[Sequence[Word]], left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        x, y = float(left), top + LINE * number
        for word in line:
            draw.text((x, y), word.text, fill=word.colour, font=_font())
            end = x + _length(word.text)
            if word.struck:
                middle = y + round(0.62 * TEXT_SIZE)
                draw.line((x, middle, end, middle), fill=word.colour)
            x = end + _between()


def _shortened(text: str, width: float) -> str:
    """Return the beginning and the end of a text that is too long, as the end often tells names apart."""
    if _length(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept * 2 // 5
        if _length(short := f"{text[: kept - tail]}...{text[len(text) - tail :]}") <= width:
            return short
    return "..."


def _length(text: str) -> float:
    return _font().getlength(text)


def _between() -> float:
    return 0.8 * TEXT_SIZE


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(font_file(), TEXT_SIZE)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="png")
    return file.getvalue()
