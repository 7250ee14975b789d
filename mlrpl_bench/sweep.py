"""Trains the cells that have no record yet, alone or side by side, and stores each as it finishes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlrpl_bench.cell import Cell
from mlrpl_bench.cell_run import Finished, Job
from mlrpl_bench.errors import UserError
from mlrpl_bench.provenance import provenance
from mlrpl_bench.results import Record, ResultStore
from mlrpl_bench.study import Study
from mlrpl_bench.trainer import Event, Failed, StepDone, train


def missing(jobs: Sequence[Job], store: ResultStore) -> list[Job]:
    """The jobs whose cells have no record, or one that is damaged."""
    return [job for job in jobs if store.damage(job.cell) is not None or store.find(job.cell) is None]


def run(
    jobs: Sequence[Job], study: Study, store: ResultStore, keep_weights: bool = True, group: int = 1
) -> Iterator[tuple[Job, Event]]:
    """Train jobs and store what comes out. A cell that fails is stored as failed, and the others still run.

    Args:
        group: how many cells are trained side by side; they share reading and the frozen part.

    Yields:
        Each job with the trainer's events; `Finished` and `Failed` come after they were stored.

    Raises:
        UserError: a backbone or weights that cannot be had, before anything is trained.
    """
    if jobs:
        _ = study.workbench
    facts: dict[str, Any] = {"deviations": study.deviations(), "left_out_images": _left_out(study)} if jobs else {}
    for members in groups(jobs, group):
        unfinished = {job.cell: job for job in members}
        for cell in unfinished:
            store.begin(cell)
        try:
            for event in _train_together(members, study):
                if isinstance(event, StepDone):
                    yield from ((job, event) for job in unfinished.values())
                    continue
                job = unfinished[event.cell]
                if isinstance(event, Finished):
                    store.write(event, {**facts, **provenance(study.workbench.fabric.device)}, keep_weights)
                elif isinstance(event, Failed):
                    store.write_failure(event.cell, event.reason, event.traceback)
                if isinstance(event, (Finished, Failed)):
                    del unfinished[event.cell]
                yield job, event
        finally:
            for cell in unfinished:  # interrupted
                store.end(cell)


def _left_out(study: Study) -> dict[str, list[dict[str, str]]]:
    """The images that could not be used, by split, each with its reason."""
    return {
        name: [{"id": str(identity), "reason": reason} for identity, reason in images]
        for name, images in study.left_out.items()
    }


def groups(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """Jobs that can be trained together, at most `size` of them each, in the order of their first members."""
    alike: dict[tuple, list[Job]] = {}
    for job in jobs:
        recipe = job.cell.recipe
        alike.setdefault((job.cell.setting, job.cell.seed, recipe.epochs, recipe.batch), []).append(job)
    return [members[start : start + size] for members in alike.values() for start in range(0, len(members), size)]


def edited_since(cell: Cell, records: Sequence[Record]) -> bool:
    """Whether there is a record that differs from the cell in nothing but the method's source."""
    content = {**cell.to_json(), "source_digest": ""}
    return any(
        content == {**record.cell.to_json(), "source_digest": ""} and record.cell.source_digest != cell.source_digest
        for record in records
    )


def _train_together(jobs: Sequence[Job], study: Study) -> Iterator[Event]:
    left = {job.cell for job in jobs}
    try:
        for event in train(jobs, study.workbench):
            if isinstance(event, (Finished, Failed)):
                left.discard(event.cell)
            yield event
    except UserError as error:  # an image that cannot be read, say
        yield from (Failed(job.cell, str(error), traceback="") for job in jobs if job.cell in left)
    except Exception as error:  # outside the methods: the frozen part runs out of memory, a loader process dies
        yield from (Failed.because_of(job.cell, error) for job in jobs if job.cell in left)
