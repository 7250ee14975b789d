"""Image files: decoding them, and looking through many of them for those that are damaged or unusual.

Imports no torch, so that worker processes start quickly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from mlrpl_bench.errors import UserError

FILES_PER_PIECE = 16
"""How many files a worker process is given at a time, where folders are looked through or prepared."""

Report = Callable[[int, int], None]
"""Told about the progress of something long as (done, in all)."""

BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
CANNOT_DECODE = (OSError, SyntaxError, ValueError, *BOMB)
"""What Pillow raises for a file that is damaged or no image."""

MISSING, UNREADABLE, TRUNCATED, BOMBS = "missing", "unreadable", "truncated", "decompression bomb"
MISLABELLED = "mislabelled"
FATAL = frozenset({MISSING, UNREADABLE, TRUNCATED, BOMBS})
"""Problems of files that cannot be decoded; files with the other problems can."""

NOT_RGB = {"1": "grey", "L": "grey", "LA": "grey", "CMYK": "CMYK", "P": "palette", "I": "16-bit", "F": "16-bit"}
"""What the modes other than RGB are called; not named here: ``I;16...`` is 16-bit, the rest is "other colours"."""

Result = TypeVar("Result")
Piece = TypeVar("Piece")


def decode(path: Path, at_least: int | None = None) -> Image.Image:
    """An image file as RGB.

    Args:
        at_least: None for every pixel; else a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as width
            and height stay at least this large. That is the JPEG decoder's own averaging, and much faster.

    Raises:
        UserError: the file is missing, damaged, a decompression bomb or no image; the line names it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow only warns up to twice its limit
            with Image.open(path) as image:
                if at_least is not None:
                    image.draft(None, (at_least, at_least))
                image.load()
                return image if image.mode == "RGB" else _as_rgb(image)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist; check the data folder") from None
    except CANNOT_DECODE as error:
        raise UserError(f"image {path} cannot be decoded ({error}); replace the file") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    """Other colours as RGB; 16 bits are scaled to 8, since Pillow's own conversion makes everything above 255 white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


class FileFacts(NamedTuple):
    """What `inspect` found out about a file.

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
        """Whether the file cannot be decoded."""
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
                image.convert("RGB")
    except FileNotFoundError:
        return FileFacts(mode, size, MISSING)
    except BOMB as error:
        return FileFacts(mode, size, BOMBS, str(error))
    except CANNOT_DECODE as error:
        return FileFacts(mode, size, TRUNCATED if mode else UNREADABLE, str(error))
    if mislabelled:
        return FileFacts(mode, size, MISLABELLED, f"its content is {image.format}")
    other_colours = "16-bit" if mode.startswith("I;16") else NOT_RGB.get(mode, "other colours")
    return FileFacts(mode, size, None if mode == "RGB" else other_colours)


def inspect_all(paths: Sequence[Path], workers: int = 0, report: Report | None = None) -> list[FileFacts]:
    """`inspect` for many files, in their order; `workers` processes (0: this one)."""
    return _map_files(inspect, paths, workers, report)


def bad_rows(paths: Sequence[Path], workers: int = 0, report: Report | None = None) -> list[tuple[int, str]]:
    """The rows whose image cannot be decoded, each with the line that says why; decodes every file.

    Whoever goes on without them removes them from the split *after* hiding: the mask is drawn over all rows, so
    that of the other rows stays as it was.
    """
    reasons = _map_files(_reason_against, paths, workers, report)
    return [(row, reason) for row, reason in enumerate(reasons) if reason is not None]


def in_parallel(
    function: Callable[[Piece], Result], pieces: Sequence[Piece], workers: int
) -> Iterator[tuple[Piece, Result]]:
    """Each piece with the function's result, as they get ready; `workers` processes (0: this one, in order).

    Raises:
        UserError: a worker process was ended from outside; and whatever the function raises, then what has not been
            begun is not begun.
    """
    if workers == 0:
        yield from ((piece, function(piece)) for piece in pieces)
        return
    pool = ProcessPoolExecutor(min(workers, max(len(pieces), 1)))
    try:
        waiting = {pool.submit(function, piece): piece for piece in pieces}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool:
        raise UserError("a worker process was ended, perhaps for want of memory; try fewer workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _map_files(
    function: Callable[[Path], Result], paths: Sequence[Path], workers: int, report: Report | None
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
    except UserError as error:
        return str(error)
    return None


def _has_another_format(image: Image.Image, path: Path) -> bool:
    """Whether a file's ending promises another format; one that promises none is not wrong."""
    promised = Image.registered_extensions().get(path.suffix.lower())
    return promised is not None and {"MPO": "JPEG"}.get(image.format or "", image.format) != promised
