"""Trains the cells that have no record yet, alone or side by side, and stores each as it finishes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlrpl_bench import checkpoint as checkpoints
from mlrpl_bench import interruption
from mlrpl_bench.cell import Cell
from mlrpl_bench.cell_run import Finished, Job
from mlrpl_bench.errors import UserError
from mlrpl_bench.provenance import provenance
from mlrpl_bench.results import Record, ResultStore
from mlrpl_bench.study import Study
from mlrpl_bench.trainer import Event, Failed, Note, StepDone, train

CHECKPOINT_SECONDS = 600.0


def missing(jobs: Sequence[Job], store: ResultStore) -> list[Job]:
    """The jobs whose cells have no record, or one that is damaged."""
    left = [job for job in jobs if store.damage(job.cell) is not None or store.find(job.cell) is None]
    for cell in {job.cell for job in jobs} - {job.cell for job in left}:
        store.end(cell)
        checkpoints.remove(store.folder(cell))  # left behind by a process that was killed just after the record
    return left


def run(
    jobs: Sequence[Job],
    study: Study,
    store: ResultStore,
    keep_weights: bool = True,
    group: int = 1,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Iterator[tuple[Job, Event]]:
    """Train jobs and store what comes out. A cell that fails is stored as failed, and the others still run.

    A cell that was left unfinished goes on from its checkpoint.

    Args:
        group: how many cells are trained side by side; they share reading and the frozen part.
        checkpoint_seconds: how much work may be lost.

    Yields:
        Each job with the trainer's events; `Finished` and `Failed` come after they were stored.

    Raises:
        UserError: a backbone or weights that cannot be had, before anything is trained.
        Interrupted: on Ctrl-C or SIGTERM, after checkpoints were written.
    """
    if jobs:
        _ = study.workbench
    facts: dict[str, Any] = {"deviations": study.deviations(), "left_out_images": _left_out(study)} if jobs else {}
    positions: dict[Cell, tuple[int, int]] = {}
    for job in jobs:
        try:
            if (state := checkpoints.read(store.folder(job.cell), job.cell)) is not None:
                positions[job.cell] = state["epoch"], state["step"]
        except UserError as error:
            moved = checkpoints.set_aside(store.folder(job.cell))
            yield job, Note(job.cell, f"{error}; moved to {moved.name}, the cell begins anew")
    with interruption.heard() as requests:
        for members in groups(jobs, group, positions):
            keeper = Keeper(store, checkpoint_seconds, requests)
            unfinished = {job.cell: job for job in members}
            for cell in unfinished:
                store.begin(cell)
            try:
                for event in _train_together(members, study, store):
                    if isinstance(event, StepDone):
                        yield from ((job, event) for job in unfinished.values())
                        yield from ((unfinished[note.cell], note) for note in keeper.after(event))
                        continue
                    job = unfinished[event.cell]
                    if isinstance(event, Finished):
                        store.write(event, {**facts, **provenance(study.workbench.fabric.device)}, keep_weights)
                        checkpoints.remove(store.folder(event.cell))
                    elif isinstance(event, Failed):
                        store.write_failure(event.cell, event.reason, event.traceback)
                    if isinstance(event, (Finished, Failed)):
                        del unfinished[event.cell]
                    yield job, event
            finally:
                for cell in unfinished:  # interrupted
                    store.end(cell)


class Keeper:
    """Writes checkpoints when one is due, and stops training when somebody asked for it."""

    def __init__(self, store: ResultStore, seconds: float, requests: interruption.Requests) -> None:
        self.store, self.seconds, self.requests = store, seconds, requests
        self.last = time.monotonic()

    def after(self, step: StepDone) -> Iterator[Note]:
        """Look after a step.

        Raises:
            Interrupted: after the checkpoints were written.
        """
        waited = time.monotonic() - self.last
        at_an_epochs_end = step.step == step.steps_per_epoch and waited >= self.seconds / 10
        if waited >= self.seconds or at_an_epochs_end or self.requests.number is not None:
            yield from self._write(step)
        self.requests.raise_if_asked()

    def _write(self, step: StepDone) -> Iterator[Note]:
        for cell, state in step.states().items():
            try:
                checkpoints.write(self.store.folder(cell), cell, state)
            except OSError as error:  # the disk may be full: what is trained is worth more than its checkpoint
                yield Note(cell, f"its checkpoint cannot be written ({error.strerror}); training goes on without")
        self.last = time.monotonic()


def _left_out(study: Study) -> dict[str, list[dict[str, str]]]:
    """The images that could not be used, by split, each with its reason."""
    return {
        name: [{"id": str(identity), "reason": reason} for identity, reason in images]
        for name, images in study.left_out.items()
    }


def groups(jobs: Sequence[Job], size: int, positions: Mapping[Cell, tuple[int, int]] | None = None) -> list[list[Job]]:
    """Jobs that can be trained together, at most `size` of them each, in the order of their first members.

    Args:
        positions: epoch and step at which cells go on, where they do not begin.
    """
    alike: dict[tuple, list[Job]] = {}
    for job in jobs:
        recipe, position = job.cell.recipe, (positions or {}).get(job.cell)
        alike.setdefault((job.cell.setting, job.cell.seed, recipe.epochs, recipe.batch, position), []).append(job)
    return [members[start : start + size] for members in alike.values() for start in range(0, len(members), size)]


def edited_since(cell: Cell, records: Sequence[Record]) -> bool:
    """Whether there is a record that differs from the cell in nothing but the method's source."""
    content = {**cell.to_json(), "source_digest": ""}
    return any(
        content == {**record.cell.to_json(), "source_digest": ""} and record.cell.source_digest != cell.source_digest
        for record in records
    )


def _train_together(jobs: Sequence[Job], study: Study, store: ResultStore) -> Iterator[Event]:
    left = {job.cell for job in jobs}
    try:
        states = {job.cell: checkpoints.read(store.folder(job.cell), job.cell) for job in jobs}
        for cell, state in states.items():
            if state is not None:
                yield Note(cell, f"goes on at epoch {state['epoch'] + 1}, step {state['step']}")
        there = {cell: state for cell, state in states.items() if state is not None}
        for event in train(jobs, study.workbench, there):
            if isinstance(event, (Finished, Failed)):
                left.discard(event.cell)
            yield event
    except UserError as error:  # an image that cannot be read, say
        yield from (Failed(job.cell, str(error), traceback="") for job in jobs if job.cell in left)
    except Exception as error:  # outside the methods: the frozen part runs out of memory, a loader process dies
        yield from (Failed.because_of(job.cell, error) for job in jobs if job.cell in left)
