"""This module does the work of ``run`` and ``leaderboard``: it plans cells, trains missing ones and makes the table."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mlrpl_bench.api import tuned
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.data.protocol import COMPLETE_AT_ONE
from mlrpl_bench.leaderboard import selection
from mlrpl_bench.leaderboard.claims import claims, published
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.leaderboard.report import write
from mlrpl_bench.leaderboard.selection import Selection
from mlrpl_bench.leaderboard.tables import dataset_ranks, main
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.leaderboard.tables.main import Context, Leaderboard
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records import matching
from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.records.store import Damaged, ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.options import variant
from mlrpl_bench.training.steps import Length
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import Table, counted


@dataclass(frozen=True)
class Plan:
    """A plan says what would be trained.

    Attributes:
        jobs: all cells that are asked for.
        todo: the cells without a record.
        score_bytes: the disk space that the scores of one cell take, in bytes.
        images: how many images there are to train on.
    """

    jobs: Sequence[Job]
    todo: Sequence[Job]
    score_bytes: int
    images: int

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        todo = [job.cell.title for job in self.todo]
        trainings = [{"methods": names, **length.to_json()} for length, names in self._lengths().items()]
        size = self.score_bytes * len(todo)
        return {"cells": len(self.jobs), "to_train": todo, "score_bytes": size, "trainings": trainings}

    def to_text(self) -> str:
        """Write the plan for people, in lines."""
        lines = [f"{counted(len(self.jobs), 'cell')}, {len(self.todo)} of them without a record:"]
        lines += [f"  {job.cell.title}" for job in self.todo]
        lengths = self._lengths()
        lines += [
            f"{', '.join(names) if len(lengths) > 1 else 'a cell'}: {length.to_text()}"
            for length, names in lengths.items()
        ]
        megabytes = self.score_bytes * len(self.todo) / 1e6
        return "\n".join([*lines, f"their scores take {megabytes:.1f} MB, weights (--keep-weights none) aside"])

    def _lengths(self) -> dict[Length, list[str]]:
        """Return the rows that are trained so long, by learning rate and number of steps."""
        found: dict[Length, list[str]] = {}
        for job in self.jobs:
            labels = found.setdefault(Length.of(job.cell.recipe, self.images), [])
            labels += [job.cell.label] if job.cell.label not in labels else []
        return found


@dataclass(frozen=True)
class Result:
    """A result holds what came out of a request.

    Attributes:
        leaderboard: the tables, or None where there is no record to make them from.
        written: the files of the leaderboard.
        unwritten: why there are no such files though they were asked for, or "".
        failures: a line for each cell that failed.
        problems: a line for each record that cannot be used.
        failed_methods: the methods of the failed cells, each once.
    """

    leaderboard: Leaderboard | None = None
    written: Sequence[Path] = ()
    unwritten: str = ""
    failures: Sequence[str] = ()
    problems: Sequence[str] = ()
    failed_methods: Sequence[str] = ()

    @property
    def measurements(self) -> pd.DataFrame:
        """Return a row for each method, known ratio and metric, with its uncertainty; see `measurements.measure`.

        Raises:
            UserError: every cell failed.
        """
        if self.leaderboard is None:
            raise UserError(f"there is nothing to show: {'; '.join(self.failures)}")
        return self.leaderboard.measurements


def plan(resolved: Resolved, watcher: Watcher, study: Study | None = None) -> Plan:
    """Say which cells have no record yet; nothing is trained, written or deleted.

    Args:
        study: the data set under the request's setting, where it was made already.
    """
    study = study or Study(resolved.dataset, resolved.request.options, watcher.report)
    resolved = _with_tuned_values(resolved, study)
    jobs, _ = _jobs(resolved, study)
    todo = sweep.missing(jobs, resolved.store)
    score_bytes = 4 * (study.train.labels_NC.size + study.test.labels_NC.size)
    return Plan(jobs, todo, score_bytes, len(study.train))


def execute(
    resolved: Resolved,
    watcher: Watcher,
    on_trained: Callable[[], object] = lambda: None,
    study: Study | None = None,
) -> Result:
    """Train the requested cells that have no record, and make the table of all the requested ones.

    A record that cannot be used is named and stands in no table. A damaged record of a cell that was asked for is moved
    aside, and the cell is trained anew.

    Args:
        on_trained: called when all is trained, before the records are read.
        study: the data set under the request's setting, where it was made already.

    Raises:
        UserError: bad options or missing data, in which case nothing was trained; or nothing to show.
    """
    request, store, dataset = resolved.request, resolved.store, resolved.dataset
    study = study or Study(dataset, request.options, watcher.report)
    resolved = _with_tuned_values(resolved, study)
    jobs, references = _jobs(resolved, study)
    failed = _train(jobs, resolved, study, watcher) if request.train else []
    on_trained()
    found = _selection(resolved, study, jobs, references, watcher)
    failures = [f"{f.cell.title}: {f.reason} (details in {store.folder(f.cell) / 'failed.json'})" for f in failed]
    failed_methods = list(dict.fromkeys(failure.cell.method for failure in failed))
    if not found.cells:
        if failures:
            return Result(failures=failures, problems=found.problems, failed_methods=failed_methods)
        reasons = "".join(f"; {line}" for line in [*found.problems, *found.excluded_records][:3])
        raise UserError(
            f"no records of this setting in {store.root / dataset.name}{reasons}; train some first, without --no-train"
        )
    table = _leaderboard(resolved, study, jobs, references, found)
    if request.published:
        table = table.with_tables([_published(table, resolved)])
    if not request.leaderboard:
        return Result(table, (), "", failures, found.problems, failed_methods)
    table, unusable = _with_secondary_tables(table, resolved)
    folder = request.out or store.root / dataset.name
    unwritten = "" if request.out is not None else _why_not_writable(folder)
    setting = variant(request.options, dataset.preset_called(request.options.preset))
    ending = "-".join(filter(None, (setting, "tuned" if resolved.tuned is not None else "")))
    files = (
        [] if unwritten else write.write(table, folder, ending, resolved.methods.entries, study.test, watcher.report)
    )
    return Result(table, files, unwritten, failures, [*found.problems, *unusable], failed_methods)


def _with_tuned_values(resolved: Resolved, study: Study) -> Resolved:
    """The request with the values that `tune` chose, where it asks for them.

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
    """A row's cell; where values are tuned the row is called so."""
    is_tuned = resolved.tuned is not None and entry.name in resolved.tuned.choices
    return study.job(entry, ratio, *seeds, dict(changed), tuned.row_name(entry.name) if is_tuned else "")


def _jobs(resolved: Resolved, study: Study) -> tuple[list[Job], dict[str, list[Job]]]:
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


def _train(jobs: Sequence[Job], resolved: Resolved, study: Study, watcher: Watcher) -> list[Failed]:
    """Train the cells that have no record, and make their evidence from scores at hand; return those that failed."""
    request, store = resolved.request, resolved.store
    todo = sweep.missing(jobs, store)
    sweep.tidy(set(jobs) - set(todo), store)
    if not todo:
        return []
    all_records = store.survey(study.setting.dataset).records
    for name in sorted({job.cell.method for job in todo if matching.edited_since(job.cell, all_records)}):
        watcher.note(f"the file of {name} changed since its record; its cells are trained anew")
    for job in todo:
        status = store.status(job.cell)
        if isinstance(status, Damaged) and (moved := store.set_aside(job.cell)) is not None:
            watcher.note(f"{status.reason}; moved to {moved}, trained anew")
    collector = Collector(study.train, study.test, study.masks)
    failures, done = [], 0
    for job, event in sweep.run(todo, study, store, request.keep_weights, request.group, request.checkpoint_seconds):
        watcher.cells(done, len(todo))
        watcher.event(job.cell.title, job.cell.recipe.epochs or 0, event)
        if isinstance(event, Failed):
            failures.append(event)
        if isinstance(event, sweep.Stored):
            with contextlib.suppress(UserError):  # the table names it
                collector.collect(event.record)
        done += sweep.ends_a_cell(event)
    return failures


def _selection(
    resolved: Resolved,
    study: Study,
    jobs: Sequence[Job],
    references: Mapping[str, Sequence[Job]],
    watcher: Watcher,
) -> Selection:
    """Select the table's records: the requested ratios and seeds; other methods that were trained so stand beside."""
    asked, hashes = {job.cell.label for job in jobs}, {job.cell.mask_hash for job in jobs}

    def wanted(cell: Cell) -> bool:
        return (
            (cell.seed, cell.mask_seed) in resolved.seeds
            and cell.ratio in resolved.ratios
            and (study.setting.mask_scheme != FROM_FILE or cell.mask_hash in hashes)
            and (cell.label in asked or not resolved.request.only_these_rows)
        )

    return selection.select(
        study,
        resolved.methods.entries,
        resolved.store,
        wanted,
        asked=[job.cell for job in jobs if wanted(job.cell)],
        reference_rows={name: [job.cell for job in row] for name, row in references.items()},
        ratios=resolved.ratios,
        report=watcher.report,
    )


def _leaderboard(
    resolved: Resolved,
    study: Study,
    jobs: Sequence[Job],
    references: Mapping[str, Sequence[Job]],
    found: Selection,
) -> Leaderboard:
    methods = resolved.methods
    keys = {job.cell.key for row in references.values() for job in row}
    own_validation = "val" in study.dataset.splits(study.root)
    given = GivenLabels.of(study.train, study.test, own_validation)
    return main.build(
        found.cells,
        [job.cell.label for job in jobs if job.cell.key not in keys],
        resolved.ratios,
        Context(
            differs={name: methods[name].differs for name in methods},
            deviations=study.deviations(),
            reference_rows={
                name: f"{row[0].cell.label} with {given.share_of_labels(row[0].cell.ratio)}"
                for name, row in references.items()
            },
            categories=study.test.categories,
            excluded_records=found.excluded_records,
            stalled=found.stalled,
            given=given,
            tuned=_about_tuning(resolved, jobs, found),
        ),
        found.missing,
    )


def _about_tuning(resolved: Resolved, jobs: Sequence[Job], found: Selection) -> list[str]:
    """Which rows are tuned, by what budget, and which are not."""
    if resolved.tuned is None:
        return []
    asked = {entry.name for entry, _ in resolved.rows}
    cells = {job.cell.method: job.cell for job in jobs if job.cell.method in asked}
    labels = {method: cell.full_label for method, cell in cells.items()}
    digests = {method: cell.source_digest for method, cell in cells.items()}
    lines = resolved.tuned.notes(labels, digests, resolved.request.options.evaluate_on)
    others = {label for label, _ in found.cells} - {tuned.row_name(method) for method in labels}
    others -= set(resolved.methods.aliases)  # what these are has a note of its own
    return [*lines, f"not tuned: {', '.join(sorted(others))}"] if others else lines


def _published(table: Leaderboard, resolved: Resolved) -> Table:
    """Set the papers' numbers beside the measured ones, which must be of the papers' data."""
    options, methods = resolved.request.options, resolved.methods
    if options.evaluate_on != "test" or options.data or options.mask_scheme != "hcp" or options.mask_file is not None:
        raise UserError(
            "--published sets the papers' numbers beside test numbers of the usual data and masks; leave out "
            "--evaluate-on, --set-data, --mask-scheme and --mask-file"
        )
    names = {name: methods[name].published for name in methods}
    if resolved.tuned is not None:
        names |= {tuned.row_name(name): names[name] for name in resolved.tuned.choices}
    found = published.published_table(table.lookup, resolved.dataset.name, names, table.ratios)
    if not found.lines:
        raise UserError(
            f"there are no published numbers on {resolved.dataset.name} at these ratios; leave --published out"
        )
    return found.table()


def _with_secondary_tables(table: Leaderboard, resolved: Resolved) -> tuple[Leaderboard, list[str]]:
    """Add the ranks over data sets, the costs of a step and the papers' claims; also return what cannot be used."""
    name = resolved.dataset.name
    ranked = dataset_ranks.rank(name, table, resolved.store, resolved.methods.entries)
    profiled, unusable = _profile(resolved.store, name)
    more = [each for each in (ranked, profiled) if each is not None]
    return table.with_tables([*more, *_claims(table, name)]), unusable


def _profile(store: ResultStore, dataset: str) -> tuple[Table | None, list[str]]:
    """Read the table that ``profile --save`` left, and say what is wrong with it."""
    from mlrpl_bench.tools.profiling import step_costs

    try:
        return step_costs.Profile.read(store.root / dataset / step_costs.FILE).table(), []
    except FileNotFoundError:
        return None, []
    except UserError as error:
        return None, [str(error)]


def _claims(table: Leaderboard, dataset: str) -> list[Table]:
    """Judge those of the papers' claims that the table's rows say something about."""
    judged = claims.judge(table.cells, dataset, table.ratios).measured()
    return [judged.table("The papers' claims")] if judged.verdicts else []


def _why_not_writable(folder: Path) -> str:
    """Say why tables cannot be written to a folder; "" if they can."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if os.access(there, os.W_OK):
        return ""
    return f"{folder} is read-only, so the table is only printed; name a folder for the files with --out"
