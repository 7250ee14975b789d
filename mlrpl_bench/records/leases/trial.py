"""This module tries whether leases can be kept in a folder: mounted buckets have no hard links, or cannot append."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mlrpl_bench.records.leases.claims import append
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import UNFINISHED
from mlrpl_bench.utils.shortages import is_full

ADVICE = (
    "a mounted bucket, for one, cannot hold the leases of training; train in a local folder or one on a shared POSIX "
    "file system, and copy the records afterwards"
)


def refuse_unfit(folder: Path) -> None:
    """Make a file in a folder, link it, append to it and read it; nothing of it stays. A missing folder is made.

    Raises:
        UserError: a hard link or appending does not work there, or the folder cannot be written to.
    """
    name = f".tried-{secrets.token_hex(8)}"
    first, second = folder / f"{name}-1{UNFINISHED}", folder / f"{name}-2{UNFINISHED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        first.write_bytes(b"1\n")
    except OSError as error:
        first.unlink(missing_ok=True)
        raise _not_writable(folder, error) from error
    try:
        _try(folder, first, second)
    finally:
        for path in (first, second):
            path.unlink(missing_ok=True)


def _try(folder: Path, first: Path, second: Path) -> None:
    try:
        os.link(first, second)
    except (OSError, AttributeError, NotImplementedError) as error:
        raise _unfit(folder, "no hard link can be made there", error) from error
    try:
        append(second, b"2\n")
        found = first.read_bytes()
    except OSError as error:
        raise _unfit(folder, "nothing can be appended to a file there", error) from error
    if found != b"1\n2\n":
        raise UserError(
            f"--results-dir: {folder} is refused, as what is appended to a file is not found there; {ADVICE}"
        )


def _unfit(folder: Path, what: str, error: Exception) -> UserError:
    if isinstance(error, OSError) and is_full(error):
        return _not_writable(folder, error)
    why = error.strerror if isinstance(error, OSError) else str(error)
    return UserError(f"--results-dir: {folder} is refused, as {what} ({why}); {ADVICE}")


def _not_writable(folder: Path, error: OSError) -> UserError:
    advice = "make room" if is_full(error) else "allow it"
    return UserError(f"{folder} cannot be written ({error.strerror}); {advice}, or name another --results-dir")
