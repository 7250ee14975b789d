"""Trains the cells that have no record yet, alone or side by side, and stores each as it finishes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from mlrpl_bench import checkpoint as checkpoints
from mlrpl_bench import interruption, memory
from mlrpl_bench.cell import Cell
from mlrpl_bench.cell_run import Finished, Job
from mlrpl_bench.errors import UserError
from mlrpl_bench.provenance import provenance
from mlrpl_bench.record import Record
from mlrpl_bench.results import ResultStore
from mlrpl_bench.study import Study
from mlrpl_bench.trainer import Event, Failed, Note, StepDone, train

CHECKPOINT_SECONDS = 600.0

Position = tuple[int, int]
"""Epoch and step at which a cell goes on."""


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
    group: int | None = 1,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Iterator[tuple[Job, Event]]:
    """Train jobs and store what comes out. A cell that fails is stored as failed, and the others still run.

    A cell that was left unfinished goes on from its checkpoint. One that runs out of memory in a group is trained
    again in one of half the size, as are all cells that come later; alone, running out of memory is its failure.

    Args:
        group: how many cells are trained side by side; they share reading and the frozen part. None for as many as
            fit in memory.
        checkpoint_seconds: how much work may be lost.

    Yields:
        Each job with the trainer's events; `Finished` and `Failed` come after they were stored.

    Raises:
        UserError: a backbone or weights that cannot be had, before anything is trained.
        Interrupted: on Ctrl-C or SIGTERM, after checkpoints were written.
    """
    if not jobs:
        return
    _ = study.workbench
    facts: dict[str, Any] = {"deviations": study.deviations(), "left_out_images": _left_out(study)}
    positions = yield from _positions(jobs, store)
    waiting = [(members, group) for members in alike(jobs, positions)]
    most: int | None = None  # known once memory ran out
    with interruption.heard() as requests:
        while waiting:
            members, size = waiting.pop(0)
            size = memory.fitting(members, study.workbench) if size is None else size
            first, *later = portions(members, size if most is None else min(size, most))
            waiting[:0] = [(portion, size) for portion in later]
            keeper = Keeper(store, checkpoint_seconds, requests)
            ran_out = yield from _train_group(first, study, store, keeper, facts, keep_weights)
            if ran_out:
                memory.release()
                most = half(first)
                positions = yield from _positions(ran_out, store)
                waiting[:0] = [(again, most) for again in alike(ran_out, positions)]


def _positions(jobs: Sequence[Job], store: ResultStore) -> Generator[tuple[Job, Note], None, dict[Cell, Position]]:
    """Where cells go on that have a checkpoint; one that is of no use is named and moved aside."""
    positions: dict[Cell, Position] = {}
    for job in jobs:
        try:
            if (state := checkpoints.read(store.folder(job.cell), job.cell)) is not None:
                positions[job.cell] = state["epoch"], state["step"]
        except UserError as error:
            moved = checkpoints.set_aside(store.folder(job.cell))
            yield job, Note(job.cell, f"{error}; moved to {moved.name}, the cell begins anew")
    return positions


def _train_group(
    members: Sequence[Job],
    study: Study,
    store: ResultStore,
    keeper: Keeper,
    facts: Mapping[str, Any],
    keep_weights: bool,
) -> Generator[tuple[Job, Event], None, list[Job]]:
    """Train cells side by side and store each; those for which memory ran out in company are returned."""
    unfinished = {job.cell: job for job in members}
    ran_out: list[Job] = []
    for cell in unfinished:
        store.begin(cell)
    try:
        for event in _train_together(members, study, store):
            if isinstance(event, StepDone):
                yield from ((job, event) for job in unfinished.values())
                yield from ((unfinished[note.cell], note) for note in keeper.after(event))
                continue
            job = unfinished[event.cell]
            if isinstance(event, (Finished, Failed)):
                del unfinished[event.cell]
            if isinstance(event, Finished):
                store.write(event, {**facts, **provenance(study.workbench.fabric.device)}, keep_weights)
                checkpoints.remove(store.folder(event.cell))
            elif isinstance(event, Failed) and len(members) > 1 and memory.ran_out(event.reason):
                store.end(event.cell)
                ran_out.append(job)
                text = f"no memory left in a group of {len(members)} ({event.reason}); tried again in one of at most"
                event = Note(event.cell, f"{text} {half(members)}")
            elif isinstance(event, Failed):
                store.write_failure(event.cell, event.reason, event.traceback)
            yield job, event
    finally:
        for cell in unfinished:  # interrupted
            store.end(cell)
    return ran_out


def half(members: Sequence[Job]) -> int:
    """The size of the groups that come after one that was too large."""
    return max(1, len(members) // 2)


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
            except (OSError, MemoryError) as error:  # what is trained is worth more than its checkpoint
                reason = error.strerror if isinstance(error, OSError) else "no memory left"
                yield Note(cell, f"its checkpoint cannot be written ({reason}); training goes on without")
        self.last = time.monotonic()


def _left_out(study: Study) -> dict[str, list[dict[str, str]]]:
    """The images that could not be used, by split, each with its reason."""
    return {
        name: [{"id": str(identity), "reason": reason} for identity, reason in images]
        for name, images in study.left_out.items()
    }


def alike(jobs: Sequence[Job], positions: Mapping[Cell, Position] | None = None) -> list[list[Job]]:
    """Jobs by what they must have in common to be trained together, in the order of their first members.

    Args:
        positions: epoch and step at which cells go on, where they do not begin.
    """
    found: dict[tuple, list[Job]] = {}
    for job in jobs:
        recipe, position = job.cell.recipe, (positions or {}).get(job.cell)
        found.setdefault((job.cell.setting, job.cell.seed, recipe.epochs, recipe.batch, position), []).append(job)
    return list(found.values())


def portions(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """As few groups as there must be of at most `size` jobs, and these as even as can be.

    The shared part costs the same as with one small group left over, but results come sooner.
    """
    number = -(-len(jobs) // size)
    ends = [len(jobs) * place // number for place in range(number + 1)]
    return [list(jobs[start:end]) for start, end in itertools.pairwise(ends)]


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
