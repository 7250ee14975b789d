"""This module lets long work tell how far it is: the types of the callbacks, one that says nothing, and time
in words.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Is told what is being done, how many units of it are done, and how many there are."""

Count = Callable[[int, int], None]
"""Is told how many units are done and how many there are; ``functools.partial(report, what)`` of a `Report` is one."""


def silent(what: str, done: int, total: int) -> None:
    """Say nothing; this function is a `Report`."""


def duration(seconds: float) -> str:
    """Write a duration for people.

    >>> duration(59), duration(3599), duration(7260)
    ('59 s', '60 min', '2 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if seconds < 3600 else f"{minutes // 60} h {minutes % 60} min"
