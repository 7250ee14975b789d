"""Writes the cache of a split's resized images (see `cache`), for ``data prepare``; an earlier try is gone on with."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.cache import (
    DONE,
    KINDS,
    LEFT_OUT,
    MANIFEST,
    PIXELS,
    UNFINISHED,
    Prepared,
    as_jpeg,
    check_facts,
    enlarged,
    facts_of,
    jpeg_path,
    read_facts,
)
from mlrpl_bench.data.images.decoding import FILES_PER_PIECE, BadImage, decode
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically
from mlrpl_bench.utils.processes import in_parallel
from mlrpl_bench.utils.progress import Count

LOCK = "owner.lock"
SAMPLED_FOR_SIZE = 16
MARGIN = 1.1
"""The free disk space must exceed the estimate by this factor."""


def size_of(split: Split, kind: str, side: int) -> int:
    """Return how many bytes the prepared images will take: exact for raw, for JPEG estimated from a sample of the
    images.

    Raises:
        UserError: no image of the sample can be decoded.
    """
    if kind == PREPARED_RAW:
        return _npy_header_bytes(len(split), side) + len(split) * _bytes_per_row(side)
    step = math.ceil(len(split) / SAMPLED_FOR_SIZE)
    sizes, problem = [], None
    for path in split.image_paths[::step]:
        try:
            sizes.append(len(as_jpeg(_enlarge(path, side))))
        except BadImage as error:  # what becomes of it is decided elsewhere
            problem = error
    if problem is not None and not sizes:
        raise problem
    return round(len(split) * sum(sizes) / len(sizes))


def prepare(
    split: Split,
    folder: Path,
    kind: str,
    side: int,
    report: Count | None = None,
    workers: int = 0,
    skipped_rows: Mapping[int, str] = MappingProxyType({}),
) -> Prepared:
    """Resize all images of a split into a folder, unless that is done; what an earlier try has done stays.

    Args:
        kind: one of `KINDS`.
        side: of the square, pixels: `ImageTransform.enlarged`.
        report: told (rows done, rows total).
        workers: processes; 0 for this one.
        skipped_rows: rows whose image is not read, with the reason; the manifest keeps them.

    Raises:
        BadImage: an image cannot be decoded.
        UserError: the folder holds something else, another process is preparing it, or the disk is or would be full.
    """
    assert kind in KINDS, f"there is no kind {kind!r} of prepared images"
    if not (folder / MANIFEST).exists():
        refuse_to_fill_the_disk([(split, folder)], kind, side)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _claimed(folder):
                if not (folder / MANIFEST).exists():  # another process may have finished just now
                    _write_all(split, folder, kind, side, report, workers, skipped_rows)
                (folder / LOCK).unlink(missing_ok=True)  # whoever has it open already finds the manifest
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"the disk of {folder} is full; free some space and start again; what is done stays"
                ) from error
            raise UserError(f"{folder} cannot be written ({error}); choose another folder") from error
    return Prepared(folder, split, kind, side)


def refuse_to_fill_the_disk(parts: Sequence[tuple[Split, Path]], kind: str, side: int) -> None:
    """Refuse to prepare splits, each in its folder on the same disk, if what is not done of them does not fit together.

    Raises:
        UserError: it does not.
    """
    needed = 0.0
    for split, folder in parts:
        if not (folder / MANIFEST).exists():
            share = 1 - len(set(_done_rows(folder, kind, len(split)))) / len(split)
            needed += share and share * size_of(split, kind, side) * (MARGIN if kind == PREPARED_JPEG else 1)
    folder = parts[0][1]
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"the prepared images need about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on the disk of "
            f"{folder}; free some space, choose another place with MLRPL_CACHE, or a smaller --image-size"
        )


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Lock the folder against other writers, which would begin the raw file anew for each other.

    The system takes a lock back when its owner ends, however that happens; a mark that merely exists would outlive a
    crash. It is a record lock because worker processes do not inherit these: else they would hold it for a dead owner.
    """
    with (folder / LOCK).open("a") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise UserError(f"another process is preparing {folder}; wait for it, or end it and start again") from None
        yield


def _write_all(
    split: Split,
    folder: Path,
    kind: str,
    side: int,
    report: Count | None,
    workers: int,
    skipped_rows: Mapping[int, str],
) -> None:
    facts = facts_of(split, kind, side)
    if (folder / UNFINISHED).exists():
        check_facts(read_facts(folder / UNFINISHED), facts, folder)
    done_rows = set(_done_rows(folder, kind, len(split)))
    write_atomically(folder / UNFINISHED, json.dumps(facts, indent=1))
    if kind == PREPARED_RAW and not done_rows:
        np.lib.format.open_memmap(folder / PIXELS, "w+", np.uint8, (len(split), side, side, 3))
    _write_missing(split, folder, kind, side, done_rows, report, workers, skipped_rows)
    write_atomically(folder / MANIFEST, json.dumps({**facts, LEFT_OUT: list(skipped_rows.items())}, indent=1))
    for name in (UNFINISHED, DONE):
        (folder / name).unlink(missing_ok=True)


def _done_rows(folder: Path, kind: str, num_rows: int) -> Iterator[int]:
    if not (folder / UNFINISHED).exists():  # whatever else lies there is none of ours
        return
    if kind == PREPARED_JPEG:
        yield from (row for row in range(num_rows) if jpeg_path(folder, row).exists())
    elif (folder / DONE).exists() and (folder / PIXELS).exists():
        done = (folder / DONE).read_bytes()
        if len(done) == math.ceil(num_rows / FILES_PER_PIECE):
            yield from (row for row in range(num_rows) if done[row // FILES_PER_PIECE])


def _write_missing(
    split: Split,
    folder: Path,
    kind: str,
    side: int,
    done_rows: set[int],
    report: Count | None,
    workers: int,
    skipped_rows: Mapping[int, str],
) -> None:
    finished = done_rows | skipped_rows.keys()
    pieces = [range(len(split))[start : start + FILES_PER_PIECE] for start in range(0, len(split), FILES_PER_PIECE)]
    missing = [[row for row in piece if row not in finished] for piece in pieces]
    tasks = [tuple((row, split.image_paths[row]) for row in rows) for rows in missing if rows]
    num_done, done = len(finished), bytearray(not rows for rows in missing)
    header = _npy_header_bytes(len(split), side)
    write = partial(_write_jpegs, folder, side) if kind == PREPARED_JPEG else partial(_write_raw, folder, side, header)
    if report is not None:
        report(num_done, len(split))
    for task, _ in in_parallel(write, tasks, workers):
        num_done += len(task)
        if kind == PREPARED_RAW:
            done[task[0][0] // FILES_PER_PIECE] = True
            write_atomically(folder / DONE, bytes(done))
        if report is not None:
            report(num_done, len(split))


def _write_jpegs(folder: Path, side: int, rows: Sequence[tuple[int, Path]]) -> None:
    for row, path in rows:
        write_atomically(jpeg_path(folder, row), as_jpeg(_enlarge(path, side)))


def _write_raw(folder: Path, side: int, header: int, rows: Sequence[tuple[int, Path]]) -> None:
    """Write the rows of one piece by ordinary writes; through a memory map a full disk would end the process."""
    pixels = {row: np.asarray(_enlarge(path, side)).tobytes() for row, path in rows}
    with (folder / PIXELS).open("r+b") as file:
        for row, its_pixels in pixels.items():  # not one block: rows that are left out lie between
            file.seek(header + row * _bytes_per_row(side))
            file.write(its_pixels)
        file.flush()
        os.fsync(file.fileno())


def _enlarge(path: Path, side: int) -> Image.Image:
    return enlarged(decode(path), side)


def _bytes_per_row(side: int) -> int:
    return 3 * side**2


def _npy_header_bytes(num_rows: int, side: int) -> int:
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": (num_rows, side, side, 3)}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.tell()
