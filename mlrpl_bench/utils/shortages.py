"""What it looks like when the machine is short of something that is no cell's fault, and what to do about it.

A disk that is full, no more file handles, a loader process that somebody ended: the next cell would meet the same, so
the run stops, with one line. Lack of memory is another matter, since a smaller group may need less; see `memory`.
"""

from __future__ import annotations

import errno
import os
import re

from mlrpl_bench.utils.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""There is no room, for anybody or for this user, or the file would be larger than is allowed."""

HANDLES = (errno.EMFILE, errno.ENFILE)

_ADVICE = {
    **dict.fromkeys(FULL, "make room there"),
    **dict.fromkeys(HANDLES, "allow more open files (ulimit -n), or use fewer --workers"),
}
_LOADER = re.compile(r"DataLoader worker \(pid\(?s?\)?.*?\) (is killed|exited)")
_LOADER_ADVICE = "a loader process was ended from outside, perhaps for want of memory; use fewer --workers"
_KEPT = "what is finished and checkpoints are kept, the same command goes on from them"


class Shortage(UserError):
    """The machine is short of something: the run stops, and the same command goes on once that is mended."""


def is_full(error: OSError) -> bool:
    """Whether a file could not be written because there is no room for it.

    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError(errno.EACCES, "Permission denied"))
    (True, False)
    """
    return error.errno in FULL


def shortage(error: BaseException) -> Shortage | None:
    """What the machine is short of, where something failed for that reason; else None.

    Errors are looked through to their causes. Of one that comes from another process there are only words.

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
    """The line of a longer text that names the reason; the reason itself where there is none."""
    return next((line.strip() for line in words.splitlines() if reason in line), reason)
