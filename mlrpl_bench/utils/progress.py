"""This module lets long work tell how far it is: the types of the callbacks, and one that says nothing."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Is told what is being done, how many units of it are done, and how many there are."""

Count = Callable[[int, int], None]
"""Is told how many units are done and how many there are; ``functools.partial(report, what)`` of a `Report` is one."""


def silent(what: str, done: int, total: int) -> None:
    """Say nothing; this function is a `Report`."""
