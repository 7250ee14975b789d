"""This module recognises a full disk, a lack of file handles and a killed loader process, and says what to do.

Such a shortage is no fault of a cell and the next cell would meet it too, so the run stops with one line and no cell
counts as failed. Lack of memory is handled elsewhere, since a smaller group may need less; see `memory`.
"""

from __future__ import annotations

import errno
import os
import re

from mlrpl_bench.utils.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the user's quota is used up, or the file would exceed the allowed size."""

HANDLES = (errno.EMFILE, errno.ENFILE)

_ADVICE = {
    **dict.fromkeys(FULL, "make room there"),
    **dict.fromkeys(HANDLES, "allow more open files (ulimit -n), or use fewer --loader-workers"),
}
_LOADER = re.compile(r"DataLoader worker \(pid\(?s?\)?.*?\) (is killed|exited)")
_LOADER_ADVICE = "a loader process was ended from outside, perhaps for want of memory; use fewer --loader-workers"
_KEPT = "what is finished and checkpoints are kept, the same command goes on from them"


class Shortage(UserError):
    """The machine lacks disk space, file handles or a loader process.

    The run stops; the same command goes on once this is mended.
    """


def is_full(error: OSError) -> bool:
    """Tell whether a file could not be written because there is no room for it.

    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError(errno.EACCES, "Permission denied"))
    (True, False)
    """
    return error.errno in FULL


def shortage(error: BaseException) -> Shortage | None:
    """Return what the machine lacks if an error has that reason, else None.

    The causes of the error are looked at too. An error from another process is recognised by its message alone.

    >>> print(shortage(OSError(errno.ENOSPC, "No space left on device", "scores.npz")))  # doctest: +ELLIPSIS
    scores.npz: No space left on device; make room there; what is finished and checkpoints are kept, the same ...
    >>> shortage(ValueError("no terms")) is None
    True
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, Shortage):
            return link
        if (line := _line(link)) is not None:
            return Shortage(f"{line}; {_KEPT}")
        link = link.__cause__
    return None


def _line(error: BaseException) -> str | None:
    words = str(error)
    if isinstance(error, RuntimeError) and _LOADER.search(words):
        return _LOADER_ADVICE
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        number = next((each for each in _ADVICE if os.strerror(each) in words), None)
    if number not in _ADVICE:
        return None
    if isinstance(error, OSError) and error.filename is not None:
        what = f"{os.fsdecode(error.filename)}: {os.strerror(number)}"
    else:
        what = _one_line_about(words, os.strerror(number))
    return f"{what}; {_ADVICE[number]}"


def _one_line_about(words: str, reason: str) -> str:
    """Return the line of a longer text that names the reason, or the reason itself if no line does."""
    return next((line.strip() for line in words.splitlines() if reason in line), reason)
