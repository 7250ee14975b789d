"""This module writes checkpoints while cells are trained, and stops training when somebody asked for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint as checkpoints
from mlrpl_bench.training.trainer import Note, StepDone, Working
from mlrpl_bench.utils import shortages, signals


class Keeper:
    """A keeper writes checkpoints of our own cells when one is due, and stops training when somebody asked for it."""

    def __init__(self, store: ResultStore, seconds: float, requests: signals.Requests, owner: Owner) -> None:
        self.store, self.seconds, self.requests, self.owner = store, seconds, requests, owner
        self.last = time.monotonic()

    def after(self, step: StepDone) -> Iterator[Note]:
        """Look after a step.

        Raises:
            Interrupted: after the checkpoints were written.
            Shortage: there is no room for a checkpoint; there would be none for the record either.
        """
        waited = time.monotonic() - self.last
        at_an_epochs_end = step.step == step.steps_per_epoch and waited >= self.seconds / 10
        if waited >= self.seconds or at_an_epochs_end or self.requests.number is not None:
            yield from self.write(step)
        self.requests.raise_if_asked()

    def between(self, working: Working) -> Iterator[Note]:
        """Look while images are scored.

        Raises:
            Interrupted, Shortage: as `after` a step.
        """
        if self.requests.number is not None:
            yield from self.write(working)
        self.requests.raise_if_asked()

    def write(self, step: StepDone | Working) -> Iterator[Note]:
        """Write the checkpoints of all cells that are ours; a note for each that cannot be written."""
        for cell, state in step.states().items():
            try:
                if self.owner.holds(self.store.folder(cell)):
                    checkpoints.write(self.store.folder(cell), cell, state)
            except (OSError, MemoryError) as error:  # what is trained is worth more than its checkpoint
                if (shortage := shortages.shortage(error)) is not None:
                    raise shortage from error
                reason = error.strerror if isinstance(error, OSError) else "no memory left"
                yield Note(cell, f"its checkpoint cannot be written ({reason}); training goes on without")
        self.last = time.monotonic()
