"""This module makes the cells that a request asks for, and trains them in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlrpl_bench.api import tuned
from mlrpl_bench.api.actions.training.elsewhere import Elsewhere
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.data.protocol import COMPLETE_AT_ONE
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records import matching
from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.records.leases.trial import refuse_unfit
from mlrpl_bench.records.provenance import device_name
from mlrpl_bench.records.store import Damaged
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.launchers.epochs import Epochs
from mlrpl_bench.training.launchers.events import Stored, ends_a_cell
from mlrpl_bench.training.launchers.groups import alike
from mlrpl_bench.training.options import BF16
from mlrpl_bench.training.parts.device import bf16_slowdown
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed
from mlrpl_bench.utils.errors import UserError

SLOW = 2.0
"""From this ratio of seconds on, bf16 beside 32 bits, a warning is due; below it, memory may be worth the time."""


def with_tuned_values(resolved: Resolved, study: Study) -> Resolved:
    """Return the request with the values that `tune` chose, where it asks for them.

    Raises:
        UserError: there are none for a method, see `tuned.read`; or hyper-parameters were changed by hand as well.
    """
    request = resolved.request
    if not request.tuned and request.tuned_file is None:
        return resolved
    if request.overrides:
        raise UserError("--tuned chooses the hyper-parameters; leave --set out")
    name, store = tuned.file_name(study), resolved.store
    places = [root / resolved.dataset.name / name for root in (store.root, *store.others)]
    path = request.tuned_file or next((place for place in places if place.is_file()), places[0])
    found = tuned.read(path, study, resolved.methods)
    methods = list(found.choices) if request.methods is None else [entry.name for entry, _ in resolved.rows]
    if left := [method for method in methods if method not in found.choices]:
        raise UserError(f"{path} has no values of {', '.join(left)}; tune them too, or leave them out")
    rows = [(resolved.methods[method], found.choices[method].values) for method in methods]
    return replace(resolved, rows=rows, tuned=found)


def _row_job(
    resolved: Resolved, study: Study, entry: MethodEntry, ratio: float, seeds: tuple[int, int],
    changed: Mapping[str, Any],
) -> Job:  # fmt: skip
    """Return a row's cell; where values are tuned the row is called so."""
    is_tuned = resolved.tuned is not None and entry.name in resolved.tuned.choices
    return study.job(entry, ratio, *seeds, dict(changed), tuned.row_name(entry.name) if is_tuned else "")


def jobs_of(resolved: Resolved, study: Study) -> tuple[list[Job], dict[str, list[Job]]]:
    """Return all cells that are asked for, and those among them that make the reference rows, by name."""
    jobs = [
        _row_job(resolved, study, entry, ratio, seeds, changed)
        for entry, changed in resolved.rows
        for ratio in resolved.ratios
        for seeds in resolved.seeds
    ]
    references = _reference_rows(resolved, study)
    keys = {job.cell.key for job in jobs}
    return [*jobs, *(job for row in references.values() for job in row if job.cell.key not in keys)], references


def _reference_rows(resolved: Resolved, study: Study) -> dict[str, list[Job]]:
    """Return the cells of the rows that every leaderboard has, such as the upper bound: one for each seed."""
    if not resolved.request.leaderboard or study.setting.mask_scheme not in COMPLETE_AT_ONE:
        return {}
    methods, choices = resolved.methods, {} if resolved.tuned is None else resolved.tuned.choices
    changed = {method: choice.values for method, choice in choices.items()}
    return {
        alias.name: [
            _row_job(resolved, study, methods[alias.method], alias.ratio, seeds, changed.get(alias.method, {}))
            for seeds in resolved.seeds
        ]
        for alias in methods.aliases.values()
    }


def part(jobs: Sequence[Job], request: Request) -> list[Job]:
    """Return the jobs of the shard that is asked for; like cells stay together, as far as they can."""
    if request.shard is None:
        return list(jobs)
    number, of = request.shard
    in_order = [job for kind in alike(jobs) for job in kind]
    return in_order[len(jobs) * (number - 1) // of : len(jobs) * number // of]


def train_as_worker(resolved: Resolved, watcher: Watcher, worker: sweep.Worker, failed: Mapping[str, str]) -> int:
    """Train what nobody else trains of the requested cells, and make no table.

    Args:
        failed: by a cell's key, the failed try that may be repeated.

    Returns:
        How many cells failed.

    Raises:
        UserError: as `execute` does.
    """
    study = Study(resolved.dataset, resolved.request.options, watcher.report)
    resolved = with_tuned_values(resolved, study)
    store = resolved.store
    jobs = [
        job
        for job in part(jobs_of(resolved, study)[0], resolved.request)
        if store.failed_try(job.cell) in (None, failed.get(job.cell.key))
    ]
    todo = made_ready(jobs, resolved, watcher)
    return len(train_here(todo, resolved, study, watcher, worker)) if todo else 0


def made_ready(jobs: Sequence[Job], resolved: Resolved, watcher: Watcher) -> list[Job]:
    """Return the jobs without a record, of which damaged ones were moved aside.

    Raises:
        UserError: there are some, and the results folder is an address or cannot hold leases.
    """
    store = resolved.store
    todo = sweep.missing(jobs, store)
    if not store.why_not_written:
        sweep.tidy(set(jobs) - set(todo), store)
    if not todo:
        return []
    store.refuse_address()
    refuse_unfit(store.root / resolved.dataset.name)
    all_records = store.survey(resolved.dataset.name).records
    for name in sorted({job.cell.method for job in todo if matching.edited_since(job.cell, all_records)}):
        watcher.note(f"the file of {name} changed since its record; its cells are trained anew")
    for job in todo:
        status = store.status(job.cell)
        if isinstance(status, Damaged) and (moved := store.set_aside(job.cell)) is not None:
            watcher.note(f"{status.reason}; moved to {moved}, trained anew")
    return todo


def train_here(
    todo: Sequence[Job], resolved: Resolved, study: Study, watcher: Watcher, worker: sweep.Worker
) -> list[Failed]:
    """Train cells in this process, and make their evidence from scores at hand; return those that failed."""
    _warn_of_slow_arithmetic(study, watcher)
    request = resolved.request
    collector = Collector(study.train, study.test, study.masks)
    failures: list[Failed] = []
    ended: set[Cell] = set()
    elsewhere = Elsewhere(todo, resolved.store)
    epochs = Epochs(0.0)
    worker = replace(worker, says=lambda: {**epochs.standing, "device": device_name(study.workbench.fabric.device)})
    choices = (request.keep_weights, request.group, request.checkpoint_seconds, worker, request.evaluate_every)
    for job, event in sweep.run(todo, study, resolved.store, *choices):
        if (made := elsewhere.look()) is not None:
            watcher.made_elsewhere(made)
        watcher.cells(len(ended | elsewhere.finished), len(todo))
        epochs.hear(job.cell.recipe.epochs or 0, event)
        watcher.event(job.cell.title, job.cell.recipe.epochs or 0, event)
        if isinstance(event, Failed):
            failures.append(event)
        if isinstance(event, Stored):
            with contextlib.suppress(UserError):  # the table names it
                collector.collect(event.record)
        if ends_a_cell(event):
            ended.add(job.cell)
    return failures


def _warn_of_slow_arithmetic(study: Study, watcher: Watcher) -> None:
    """Warn where bf16, which is chosen because it is fast, is slow."""
    if study.setting.precision != BF16 or study.workbench.fabric.device.type != "cpu":
        return
    if (slowdown := bf16_slowdown()) > SLOW:
        watcher.warn(
            f"--precision {BF16} is slow on this processor, which takes {slowdown:.0f} times as long for a product of "
            "matrices as in 32 bits; without --precision cells of their own are trained faster"
        )
