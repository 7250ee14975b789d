"""Reads files of arrays that may come from anybody, unpickling nothing, and turns arrays into what JSON has.

A zip archive of a few kilobytes can hold gigabytes, and a header of a hundred bytes can announce terabytes. Both are
seen from what the file says about itself, before anything is expanded or memory is used for it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.utils.errors import one_line

EXPANDS_FREELY_TO = 2**30
"""An archive may always expand to this many bytes.

They hold the scores of two million images and a hundred categories, and ids in a third of that space.
"""
LARGEST_RATIO = 10
"""A larger archive may expand to this many times its own size; masks and scores are hard to compress."""

NPY, ZIP = b"\x93NUMPY", b"PK"
"""These are the first bytes of the two kinds of files."""


class Damaged(ValueError):
    """An array file is damaged, incomplete or unsafe; the message is one line without the path."""


def read(path: Path) -> dict[str, NDArray]:
    """Read the arrays of an ``.npz`` by name, or the array of an ``.npy`` under the name ``array``.

    Raises:
        Damaged: it cannot be read, whatever the reason.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(NPY))
            file.seek(0)
            if start.startswith(NPY):
                return {"array": _array(file, path.stat().st_size)}
            if not start.startswith(ZIP):
                raise Damaged("neither an .npy nor an .npz of NumPy")
            with zipfile.ZipFile(file) as archive:
                refuse_bomb(archive, path.stat().st_size)
                return {
                    entry.filename.removesuffix(".npy"): _array(archive.open(entry), entry.file_size)  # type: ignore[arg-type]
                    for entry in archive.infolist()
                }
    except Damaged:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and the tokenizer that it reads headers with raise many kinds
        raise Damaged(f"{type(error).__name__}: {one_line(error)}") from error


def plain(value: Any) -> Any:
    """Return the same value as JSON has it: lists for arrays and tuples, None for NaN; at any depth of lists and
    mappings.

    Infinities are left as they are, since JSON has nothing for them: ``allow_nan=False`` refuses them.

    >>> plain({"AP_C": np.array([0.5, np.nan]), "seeds": (0, 1), "p": float("nan")})
    {'AP_C': [0.5, None], 'seeds': [0, 1], 'p': None}
    """
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def refuse_bomb(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive whose content is far larger than the file.

    Args:
        size: the file's size in bytes. The sizes that the entries state can be trusted: no more is ever expanded.

    Raises:
        Damaged: it would expand to too much.
    """
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in archive.infolist()):
        raise Damaged("it is compressed in a way whose size cannot be limited")  # zipfile expands bz2 by whole reads
    expanded = sum(entry.file_size for entry in archive.infolist())
    if expanded > max(EXPANDS_FREELY_TO, LARGEST_RATIO * size):
        raise Damaged(f"its {size:,} bytes would expand to {expanded:,}, it may be a zip bomb")


def _array(file: BinaryIO, size: int) -> NDArray:
    """Return the array of an ``.npy`` of this many bytes."""
    with file:
        header = np.lib.format
        read_header = {(1, 0): header.read_array_header_1_0, (2, 0): header.read_array_header_2_0}
        shape, _, dtype = read_header[header.read_magic(file)](file)
        if dtype.hasobject:
            raise Damaged("it holds pickled objects, which are never read")
        announced = dtype.itemsize
        for length in shape:  # Python's integers, which do not overflow
            announced *= length
        if announced != size - file.tell() or (dtype.itemsize == 0 and 0 not in shape):
            raise Damaged(f"its header announces {announced:,} bytes and {size - file.tell():,} follow")
        file.seek(0)
        return header.read_array(file, allow_pickle=False)
