"""Stopping between two steps: Ctrl-C and SIGTERM are heard at once and obeyed where nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Stopped on request, after everything worth keeping was kept.

    Attributes:
        exit_code: 130 for Ctrl-C, 143 for SIGTERM, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Terminated(BaseException):
    """SIGTERM where nothing is being trained: as Ctrl-C's `KeyboardInterrupt`, so that what was begun is tidied up."""


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """What the command line does about SIGTERM, unless it is `heard`.

    Raises:
        Terminated: always.
    """
    raise Terminated


class Requests:
    """Whether somebody asked to stop; the caller looks between steps."""

    number: int | None = None

    def raise_if_asked(self) -> None:
        """Raises:
        Interrupted: somebody did.
        """
        if self.number is not None:
            raise Interrupted(self.number)


@contextlib.contextmanager
def graceful_stop() -> Iterator[Requests]:
    """While this lasts, a first Ctrl-C or SIGTERM is a request; a second one acts at once, as it otherwise does."""
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
        yield requests
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def hear(number: int, frame: FrameType | None) -> None:
        requests.number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
