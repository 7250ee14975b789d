"""Progress for machines: each line on standard error is one JSON object with its ``event`` and the ``time``."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from mlrpl_bench.cli.epochs import Epochs
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.training.launchers.events import Began, FoundFinished, SweepEvent, Waiting
from mlrpl_bench.training.trainer import Failed, Note

LINE_SECONDS = 60.0
"""A preparation gets a line at most this often, and one at its end."""


class JsonLog:
    """Writes what happens as lines of JSON; numbers that are none, such as a loss that is not a number, are null.

    Args:
        clock: seconds from any start that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._epochs = Epochs(0.0, clock)
        self._told: dict[str, float] = {}

    def __enter__(self) -> JsonLog:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def report(self, what: str, done: int, total: int) -> None:
        """A preparation that takes a while."""
        now = self.clock()
        if done == total or now - self._told.setdefault(what, now) >= LINE_SECONDS:
            self._told[what] = now
            self._write("preparation", what=what, done=done, total=total)
        if done == total:
            self._told.pop(what, None)

    def cells(self, done: int, total: int) -> None:
        """How many of the cells are done; a line where it changes."""
        if self._told.get("cells") != done:
            self._told["cells"] = done
            self._write("cells", done=done, total=total)

    def note(self, text: str) -> None:
        """A line that a person should read."""
        self._write("note", text=text)

    def warn(self, text: str) -> None:
        """Something is not as it should be."""
        self._write("warning", text=text)

    def problem(self, text: str) -> None:
        """A record cannot be used."""
        self._write("problem", text=text)

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Something happened to the cell with this title."""
        if (epoch := self._epochs.hear(epochs, event)) is not None:
            self._write("epoch", **dataclasses.asdict(epoch))
        if isinstance(event, Began):
            self._write("group", epochs=epochs, **dataclasses.asdict(event))
        elif isinstance(event, Waiting):
            self._write("waiting", **dataclasses.asdict(event))
        elif isinstance(event, Note):
            self._write("note", cell=title, text=event.text)
        elif isinstance(event, Finished):
            mean = 100 * float(event.metrics["mAP"])
            self._write("finished", cell=title, test_mAP=mean, seconds=event.seconds)
        elif isinstance(event, FoundFinished):
            self._write("finished elsewhere", cell=title)
        elif isinstance(event, Failed):
            self._write("failed", cell=title, reason=event.reason)

    def _write(self, event: str, **facts: Any) -> None:
        line = {"event": event, "time": round(time.time(), 3), **{name: _plain(fact) for name, fact in facts.items()}}
        print(json.dumps(line, allow_nan=False), file=sys.stderr, flush=True)


def _plain(fact: Any) -> Any:
    if isinstance(fact, float):
        return round(fact, 6) if math.isfinite(fact) else None
    return [_plain(part) for part in fact] if isinstance(fact, tuple) else fact
