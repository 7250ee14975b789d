"""This module logs progress for machines: each line on standard error is one JSON object with its ``event`` and the
``time``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlrpl_bench.cli.streams import write_json
from mlrpl_bench.cli.worker_lines import EndedEpochs
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.records.record import Record
from mlrpl_bench.training.launchers.epochs import Epoch, Epochs, Silences
from mlrpl_bench.training.launchers.events import Began, FoundFinished, SweepEvent, Waiting
from mlrpl_bench.training.trainer import Failed, Note, StepDone

LINE_SECONDS = 60.0
"""A preparation gets a line at most this often, and one at its end."""


EPOCH = tuple(field.name for field in dataclasses.fields(Epoch))
"""The facts of an epoch, whoever has ended it."""

STANDING = ("cells", "epochs", "images_per_second", "seconds_left")
"""The facts of a group within an epoch, beside its place."""


class JsonLog:
    """Writes what happens as lines of JSON; numbers that are none, such as a loss that is not a number, are null.

    Args:
        clock: seconds from any start that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._epochs = Epochs(0.0, clock)
        self._silences = Silences(clock)
        self._ended = EndedEpochs(0.0, clock)
        self._told: dict[str, float] = {}

    def __enter__(self) -> JsonLog:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def report(self, what: str, done: int, total: int) -> None:
        """Write a line about a preparation that takes a while."""
        now = self.clock()
        if done == total or now - self._told.setdefault(what, now) >= LINE_SECONDS:
            self._told[what] = now
            write_json("preparation", what=what, done=done, total=total)
        if done == total:
            self._told.pop(what, None)

    def cells(self, done: int, total: int) -> None:
        """Write how many of the cells are done, where that changes."""
        if self._told.get("cells") != done:
            self._told["cells"] = done
            write_json("cells", done=done, total=total)

    def made_elsewhere(self, cells: Mapping[str, float]) -> None:
        """Ignore it; the time that is left for all cells is not in the log."""

    def workers(self, at_work: Sequence[AtWork]) -> None:
        """Write a line for each epoch that a process elsewhere has ended."""
        for each in self._ended.news(at_work):
            facts = {field: getattr(each, field) for field in EPOCH}
            write_json("epoch", node=each.node, process=each.process, device=each.device, **facts)

    def note(self, text: str) -> None:
        """Write a line that a person should read."""
        write_json("note", text=text)

    def warn(self, text: str) -> None:
        """Write that something is not as it should be."""
        write_json("warning", text=text)

    def problem(self, text: str) -> None:
        """Write that a record cannot be used."""
        write_json("problem", text=text)

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Write that something happened to the cell with this title."""
        if (epoch := self._epochs.hear(epochs, event)) is not None:
            write_json("epoch", **dataclasses.asdict(epoch))
        if self._silences.due(event, is_told=epoch is not None) and isinstance(event, StepDone):
            standing = {name: self._epochs.standing[name] for name in STANDING}
            place = {"epoch": event.epoch + 1, "step": event.step, "steps_per_epoch": event.steps_per_epoch}
            write_json("step", **place, **standing)
        if isinstance(event, Began):
            write_json("group", epochs=epochs, **dataclasses.asdict(event))
        elif isinstance(event, Waiting):
            write_json("waiting", **dataclasses.asdict(event))
        elif isinstance(event, Note):
            write_json("note", cell=title, text=event.text)
        elif isinstance(event, Finished):
            mean = 100 * float(event.metrics["mAP"])
            write_json("finished", cell=title, test_mAP=mean, seconds=event.seconds)
        elif isinstance(event, FoundFinished):
            write_json("finished elsewhere", cell=title, **_facts(event.record))
        elif isinstance(event, Failed):
            write_json("failed", cell=title, reason=event.reason)


def _facts(record: Record | None) -> dict[str, Any]:
    """Return what the record of another process says of its cell; nothing where it cannot be read."""
    if record is None:
        return {}
    mean, content = 100 * float(record.metrics["mAP"]), record.content
    return {"test_mAP": mean, "seconds": content["cost"]["seconds"], "node": content.get("node")}
