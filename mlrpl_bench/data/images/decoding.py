"""This module decodes image files and searches many of them for damaged or unusual ones.

It imports no torch, so that worker processes start quickly.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import cache_folder, write_atomically
from mlrpl_bench.utils.processes import Result, in_parallel
from mlrpl_bench.utils.progress import Count

FILES_PER_PIECE = 16
"""A worker process is given this many files at a time when folders are checked or prepared."""

BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


CANNOT_DECODE = (OSError, SyntaxError, ValueError, *BOMB)
"""Pillow raises these for a file that is damaged or no image."""


NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

KEEP_EVERY = 4096
"""Results are saved after this many decoded files, so that an interrupted search is not lost."""

EXTENT = "extent"
"""`decode` keeps under this name, in Pillow's facts on an image, what `extent` returns."""

MISSING, UNREADABLE, TRUNCATED, BOMBS = "missing", "unreadable", "truncated", "decompression bomb"


FLOATING, MISLABELLED = "floating-point", "mislabelled"


FATAL = frozenset({MISSING, UNREADABLE, TRUNCATED, BOMBS, FLOATING})
"""These are problems of files that cannot be decoded; files with the other problems can."""

NOT_RGB = {"1": "grey", "L": "grey", "LA": "grey", "CMYK": "CMYK", "P": "palette", "I": "16-bit"}
"""These are Pillow's colour modes other than RGB in words; modes not listed are "other colours", ``I;16...`` are
16-bit.
"""


class BadImage(UserError):
    """An image file is missing, damaged or no image; the other images can be trained on without it.

    A file that the system could not read (no permission, too many open files) is a plain UserError: it says nothing
    about the image, and leaving images out for it would make another training set of every bad day.
    """


def decode(path: Path, at_least: int | None = None) -> Image.Image:
    """Decode an image file as RGB.

    Args:
        at_least: None for every pixel; else a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as width
            and height stay at least this large. That is the JPEG decoder's own averaging, and much faster. `extent`
            then tells where the picture ends.

    Raises:
        BadImage: the file is missing, damaged, a decompression bomb or no image; the line names it.
        UserError: the system could not read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow only warns up to twice its limit
            with Image.open(path) as image:
                if at_least is not None:
                    drafted = image.draft(None, (at_least, at_least))
                    if drafted is not None:
                        image.info[EXTENT] = drafted[1][2:]
                image.load()
                return image if image.mode == "RGB" else _as_rgb(image)
    except NOT_THERE:
        raise BadImage(f"image {path} does not exist; check the data folder") from None
    except CANNOT_DECODE as error:
        if _is_the_systems(error):
            raise UserError(f"image {path} cannot be read ({error}); check the permissions and the disk") from error
        raise BadImage(f"image {path} cannot be decoded ({_in_words(error)}); replace the file") from error


def extent(image: Image.Image) -> tuple[float, float]:
    """Return the width and height that the picture has in an image from `decode`, in pixels of the image.

    A picture of 499 pixels that is decoded at half its size is 249.5 pixels wide, and stands in an image of 250.
    """
    width, height = image.info.get(EXTENT, image.size)
    return width, height


def _is_the_systems(error: Exception) -> bool:
    """Tell whether the operating system failed and not the image; Pillow's own OSErrors have no number."""
    # EINVAL comes from a damaged header that sends the decoder to a place before the file's start.
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _in_words(error: BaseException) -> str:
    """Return an error's message, never empty, without the path that Pillow puts into one of its messages."""
    return "it is no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return other colours as RGB; 16 bits are scaled to 8, since Pillow's own conversion makes everything above 255
    white.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


class FileFacts(NamedTuple):
    """This holds what `inspect` found out about a file.

    Attributes:
        mode: Pillow's name of the colours as stored, ``RGB``; empty where the header cannot be read.
        size: width and height, pixels; (0, 0) where the header cannot be read.
        problem: the gravest one: of `FATAL`, MISLABELLED (another format than the name's ending says), or a name for
            colours other than RGB (they are converted); None for an ordinary image.
        reason: the problem in the decoder's words; empty where there are none.
    """

    mode: str
    size: tuple[int, int]
    problem: str | None
    reason: str = ""

    @property
    def is_fatal(self) -> bool:
        """Tell whether the file cannot be decoded."""
        return self.problem in FATAL


def inspect(path: Path) -> FileFacts:
    """Decodes a file completely and says what it is. Never raises for what is wrong with a file."""
    mode, size = "", (0, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode, size = image.mode, image.size
                mislabelled = _has_another_format(image, path)
                image.load()
                _as_rgb(image)
    except NOT_THERE:
        return FileFacts(mode, size, MISSING)
    except BOMB as error:
        return FileFacts(mode, size, BOMBS, str(error))
    except CANNOT_DECODE as error:
        problem = FLOATING if mode == "F" else TRUNCATED if mode and not _is_the_systems(error) else UNREADABLE
        return FileFacts(mode, size, problem, _in_words(error))
    if mislabelled:
        return FileFacts(mode, size, MISLABELLED, f"its content is {image.format}")
    other_colours = "16-bit" if mode.startswith("I;16") else NOT_RGB.get(mode, "other colours")
    return FileFacts(mode, size, None if mode == "RGB" else other_colours)


def inspect_all(paths: Sequence[Path], workers: int = 0, report: Count | None = None) -> list[FileFacts]:
    """Do `inspect` for many files, in their order; `workers` processes (0: this one)."""
    return _map_files(inspect, paths, workers, report)


def bad_rows(
    paths: Sequence[Path], workers: int = 0, report: Count | None = None, remember: bool = False
) -> list[tuple[int, str]]:
    """Return the rows whose image is missing or cannot be decoded, each with the reason; decodes every file.

    Whoever goes on without them removes them from the split *after* hiding: the mask is drawn over all rows, so
    that of the other rows stays as it was.

    Args:
        remember: keep what was found in the cache folder, and decode only files that are new or changed since.

    Raises:
        UserError: the system could not read a file.
    """
    keys = [_key_of(path) for path in paths]
    memory = _memory_of(paths) if remember and paths else None
    found = {} if memory is None else _remembered(memory)
    new = [row for row, key in enumerate(keys) if key is not None and key not in found]
    for start in range(0, len(new), KEEP_EVERY):
        rows = new[start : start + KEEP_EVERY]
        told = None if report is None else lambda done, _, start=start: report(start + done, len(new))
        reasons = _map_files(_reason_against, [paths[row] for row in rows], workers, told)
        found |= {keys[row]: reason for row, reason in zip(rows, reasons, strict=True)}
        if memory is not None:
            write_atomically(memory, json.dumps(found))
    all_reasons = [MISSING if key is None else found[key] for key in keys]
    return [(row, reason) for row, reason in enumerate(all_reasons) if reason is not None]


def _map_files(
    function: Callable[[Path], Result], paths: Sequence[Path], workers: int, report: Count | None
) -> list[Result]:
    results: dict[int, Result] = {}
    pieces = [range(len(paths))[start : start + FILES_PER_PIECE] for start in range(0, len(paths), FILES_PER_PIECE)]
    with_paths = [tuple((row, paths[row]) for row in piece) for piece in pieces]
    for _, of_piece in in_parallel(partial(_of_each, function), with_paths, workers):
        results.update(of_piece)
        if report is not None:
            report(len(results), len(paths))
    return [results[row] for row in range(len(paths))]


def _of_each(
    function: Callable[[Path], Result], rows_and_paths: tuple[tuple[int, Path], ...]
) -> list[tuple[int, Result]]:
    return [(row, function(path)) for row, path in rows_and_paths]


def _reason_against(path: Path) -> str | None:
    try:
        decode(path)
    except BadImage as error:
        return MISSING if error.__cause__ is None else _in_words(error.__cause__)
    return None


def _key_of(path: Path) -> str | None:
    """Return what identifies a file's present content (size and times), or None if it does not exist."""
    try:
        facts = path.stat()
    except NOT_THERE:
        return None
    except OSError as error:
        raise UserError(f"image {path} cannot be read ({error.strerror}); check the permissions") from error
    text = repr((os.path.abspath(path), facts.st_size, facts.st_mtime_ns))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _memory_of(paths: Sequence[Path]) -> Path:
    """Return where decoding results of these files are kept: one file for all below a folder, for one decoder."""
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    name = repr((folder, PIL.__version__, Image.MAX_IMAGE_PIXELS))
    return cache_folder() / "decoded" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def _remembered(memory: Path) -> dict[str | None, str | None]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # not there, or damaged: then everything is decoded once more
        return {}
    is_ours = isinstance(found, dict) and all(reason is None or isinstance(reason, str) for reason in found.values())
    return found if is_ours else {}


def _has_another_format(image: Image.Image, path: Path) -> bool:
    """Tell whether a file's ending promises another format; one that promises none is not wrong."""
    promised = Image.registered_extensions().get(path.suffix.lower())
    return promised is not None and {"MPO": "JPEG"}.get(image.format or "", image.format) != promised
