"""This module lets a run stop between two steps: Ctrl-C and SIGTERM are noted at once and obeyed after the step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was stopped on request, after checkpoints were written.

    Attributes:
        exit_code: 130 for Ctrl-C, 143 for SIGTERM, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Terminated(BaseException):
    """SIGTERM arrived while nothing was trained.

    It is the counterpart of Ctrl-C's `KeyboardInterrupt`: unfinished files are removed on the way out.
    """


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception; the command line's handler outside of `graceful_stop`.

    Raises:
        Terminated: always.
    """
    raise Terminated


class Requests:
    """This object remembers whether a stop was requested; the caller asks it between steps.

    Attributes:
        number: the signal that asked, or None.
    """

    number: int | None = None

    def raise_if_asked(self) -> None:
        """Raise if a stop was requested.

        Raises:
            Interrupted: Ctrl-C or SIGTERM has arrived.
        """
        if self.number is not None:
            raise Interrupted(self.number)


@contextlib.contextmanager
def graceful_stop() -> Iterator[Requests]:
    """Turn the first Ctrl-C or SIGTERM inside this block into a request to stop; a second one acts at once."""
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
