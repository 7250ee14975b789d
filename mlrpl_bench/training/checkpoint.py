"""This module keeps the state of a cell that is not finished, so that training goes on from it, bit for bit.

A checkpoint belongs to a cell, never to the group that it was trained in. Random numbers follow from seed and position
(epoch and step), so no generator's state is saved. The file is a SHA-256 of what follows, the position, then what
`torch.save` makes of plain data and tensors; it is read without unpickling anything else.
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
"""This mark stands in the name of a checkpoint of no use that was moved aside."""

VERSION = 2
"""The content has this version; a checkpoint of another version is of no use."""

DIGEST_BYTES = 32
POSITION = struct.Struct("<qq")
"""The head states epoch and step, from 0, so that a table can tell where a cell stands without reading a gigabyte."""

HEAD_BYTES = DIGEST_BYTES + POSITION.size

State = dict[str, Any]
"""A state holds everything that training goes on from, see `run.CellRun.state`."""


def write(folder: Path, cell: Cell, state: State) -> None:
    """Keep a cell's state, in place of the one before.

    Raises:
        OSError: it cannot be written, as on a full disk; the state before is still there then.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, "key": cell.key, "code": code_digest(), "state": state}, buffer)
    content = POSITION.pack(state["epoch"], state["step"]) + buffer.getvalue()
    write_atomically(folder / FILE, hashlib.sha256(content).digest() + content)


def read(folder: Path, cell: Cell) -> State | None:
    """Read a cell's state; None where none was kept.

    Raises:
        UserError: it is damaged, of another cell or version, or written by other code; training must begin anew.
        OSError: the system could not read it, which says nothing about the file.
        MemoryError: it does not fit in memory, which says nothing about the file.
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
    """Return the epoch and the step (from 0) at which a cell was left; None where no state was kept.

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
    """Move a checkpoint of no use out of the way, and return where it is then."""
    return files.set_aside(folder / FILE, SET_ASIDE)


@functools.cache
def code_digest() -> str:
    """Return a SHA-256 of the code that all methods share; a cell must be trained with the same code to its end."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def remove(folder: Path) -> None:
    """Delete a cell's state, because the cell is finished."""
    (folder / FILE).unlink(missing_ok=True)
