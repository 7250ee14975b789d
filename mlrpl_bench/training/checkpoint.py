"""The state of a cell that is not finished, so that training can be taken up where it was left, bit for bit.

A checkpoint belongs to a cell, never to the group that it was trained in. Randomness is addressed by position, so there
is none to save. The file is a SHA-256 of what follows, the position, then what `torch.save` makes of plain data and
tensors; it is read without unpickling anything else.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from mlrpl_bench.records.cell import Cell
from mlrpl_bench.utils import arrays, files
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import PACKAGE, write_atomically

FILE = "checkpoint.pt"
SET_ASIDE = ".unused-"
"""In the name of a checkpoint of no use that was moved aside."""

VERSION = 2
"""Of the content; a checkpoint of another version is of no use."""

DIGEST_BYTES = 32
POSITION = struct.Struct("<qq")
"""Epoch and step, from 0, so that a table can tell where a cell stands without reading a gigabyte."""

HEAD_BYTES = DIGEST_BYTES + POSITION.size

State = dict[str, Any]
"""See `cell_run.CellRun.state`."""


def write(folder: Path, cell: Cell, state: State) -> None:
    """Keep a cell's state, in place of the one before.

    Raises:
        OSError: the disk is full, say; the one before is still there then.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, "key": cell.key, "code": code_digest(), "state": state}, buffer)
    content = POSITION.pack(state["epoch"], state["step"]) + buffer.getvalue()
    write_atomically(folder / FILE, hashlib.sha256(content).digest() + content)


def read(folder: Path, cell: Cell) -> State | None:
    """The cell's state, or None where none was kept.

    Raises:
        UserError: it is damaged, or of another cell or version; training must begin anew.
        OSError, MemoryError: it could not be looked at.
    """
    path = folder / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        raise UserError(f"checkpoint {path} is damaged")
    try:
        with zipfile.ZipFile(io.BytesIO(content[HEAD_BYTES:])) as archive:
            arrays.refuse_bomb(archive, len(content))
        found = torch.load(io.BytesIO(content[HEAD_BYTES:]), map_location="cpu", weights_only=True)
        version, key, code, state = (found[name] for name in ("version", "key", "code", "state"))
        kinds = ((version, int), (key, str), (code, str), (state["epoch"], int), (state["step"], int))
        if not all(type(value) is kind for value, kind in kinds):
            raise TypeError("no checkpoint")
    except (MemoryError, OSError):  # which says nothing about the file
        raise
    except RuntimeError as error:
        if "allocate memory" in str(error):  # what the CPU allocator of torch says; the file may be whole
            raise MemoryError(str(error)) from error
        raise UserError(f"checkpoint {path} is damaged ({type(error).__name__})") from error
    except Exception as error:  # pickle, zipfile and torch raise many kinds on what is no checkpoint
        raise UserError(f"checkpoint {path} is damaged ({type(error).__name__})") from error
    if (version, key) != (VERSION, cell.key):
        raise UserError(f"checkpoint {path} is of another {'cell' if version == VERSION else 'version'}")
    if code != code_digest():
        raise UserError(f"checkpoint {path} was written by other code")
    return state


def position(folder: Path) -> tuple[int, int] | None:
    """The epoch and the step (from 0) at which a cell was left, or None where no state was kept.

    Only the file's head is read: whether training can go on from there is known after `read`.
    """
    try:
        with (folder / FILE).open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    if len(head) < HEAD_BYTES:
        return None
    epoch, step = POSITION.unpack(head[DIGEST_BYTES:])
    return (epoch, step) if epoch >= 0 and step >= 0 else None


def set_aside(folder: Path) -> Path:
    """Move a checkpoint of no use out of the way; where it is then."""
    return files.set_aside(folder / FILE, SET_ASIDE)


@functools.cache
def code_digest() -> str:
    """Identifies the code that all methods share: a cell that changes it half-way is no cell of either."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def remove(folder: Path) -> None:
    """Forget a cell's state, because the cell is finished."""
    (folder / FILE).unlink(missing_ok=True)
