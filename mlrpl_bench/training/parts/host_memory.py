"""This module tells the C library of Linux (glibc) to keep the memory that training frees, and to give it back.

By itself glibc returns a block of more than 32 MB to the system as soon as it is freed, and the system fills every page
of the next one with zeros. A step allocates such blocks for each convolution, of the same sizes again and again: on
photographs that is 40 % of the frozen part's processor time. Numbers do not depend on where a tensor lies.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""These are glibc's names and numbers, of ``malloc.h``."""

CHOICES_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Where one of these variables is set, glibc does what it says."""


def keep_freed() -> bool:
    """Keep freed memory for the next blocks, in the whole process.

    Returns:
        Whether it is kept: not where there is another C library than glibc, nor where the user chose otherwise.
    """
    glibc = _glibc()
    if glibc is None or any(name in os.environ for name in CHOICES_OF_THE_USER):
        return False
    # No block is a mapping of its own, and the heap is never cut: -1 is no limit.
    return bool(glibc.mallopt(M_MMAP_MAX, 0) and glibc.mallopt(M_TRIM_THRESHOLD, -1))


def give_back() -> None:
    """Give freed memory back to the system, so that it counts as free and not as the process's."""
    glibc = _glibc()
    if glibc is not None:
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
