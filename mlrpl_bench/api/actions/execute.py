"""This module does the work of ``run`` and ``leaderboard``: it plans cells, trains missing ones and makes the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlrpl_bench.api import tuned
from mlrpl_bench.api.actions.training import cells, launching
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.launchers.placement import HERE, Placement
from mlrpl_bench.launchers.starting import WAITING
from mlrpl_bench.leaderboard import selection
from mlrpl_bench.leaderboard.claims import claims, published
from mlrpl_bench.leaderboard.report import write
from mlrpl_bench.leaderboard.selection import Selection
from mlrpl_bench.leaderboard.tables import dataset_ranks, main
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.leaderboard.tables.main import Context, Leaderboard
from mlrpl_bench.models.finishing import JOINT
from mlrpl_bench.models.registry import MethodEntry, Registry
from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.launchers.groups import SHARED, planned, seconds_until_all_ended
from mlrpl_bench.training.launchers.memory import MOST_CELLS
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.parts.device import find_device
from mlrpl_bench.training.steps import Length
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import is_writable
from mlrpl_bench.utils.tables import Table, counted


@dataclass(frozen=True)
class Plan:
    """A plan says what would be trained.

    Attributes:
        jobs: all cells that are asked for.
        todo: the cells without a record.
        workers: how many workers are to train them.
        side_by_side: how many cells are trained side by side at most, before anybody looks at the memory.
        score_bytes: the disk space that the scores of one cell take, in bytes.
        images: how many images there are to train on.
    """

    jobs: Sequence[Job]
    todo: Sequence[Job]
    score_bytes: int
    images: int
    workers: int = 1
    side_by_side: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        todo = [job.cell.title for job in self.todo]
        trainings = [{"methods": names, **length.to_json()} for length, names in self._lengths().items()]
        size = self.score_bytes * len(todo)
        facts = {"cells": len(self.jobs), "to_train": todo, "score_bytes": size, "trainings": trainings}
        if self.workers > 1:
            facts |= {"workers": self.workers, "groups": [[job.cell.title for job in each] for each in self.groups()]}
        return facts

    def groups(self) -> list[list[Job]]:
        """Return the cells without a record, in the groups in which workers would train them side by side."""
        return planned(self.todo, self.side_by_side, self.workers) if self.todo else []

    def to_text(self) -> str:
        """Write the plan for people, in lines."""
        lines = [f"{counted(len(self.jobs), 'cell')}, {len(self.todo):,} of them without a record:"]
        lines += [f"  {job.cell.title}" for job in self.todo]
        lines += self._groups_text() if self.workers > 1 else []
        lengths = self._lengths()
        lines += [
            f"{', '.join(names) if len(lengths) > 1 else 'a cell'}: {length.to_text()}"
            for length, names in lengths.items()
        ]
        megabytes = self.score_bytes * len(self.todo) / 1e6
        return "\n".join([*lines, f"their scores take {megabytes:.1f} MB, weights (--keep-weights none) aside"])

    def _groups_text(self) -> list[str]:
        groups = self.groups()
        if not groups:
            return []
        sizes = [len(group) for group in groups]
        times = seconds_until_all_ended(sizes, self.workers) / ((sum(sizes) + SHARED * len(sizes)) / self.workers)
        lines = [
            f"{counted(self.workers, 'worker')}, {counted(len(groups), 'group')} of at most "
            f"{counted(max(sizes), 'cell')} side by side (fewer where memory is short); the last ends after "
            f"{times:.2f} times an even division:"
        ]
        named = (", ".join(job.cell.title for job in group) for group in groups)
        return lines + [f"  group {number}: {titles}" for number, titles in enumerate(named, 1)]

    def _lengths(self) -> dict[Length, list[str]]:
        """Return the rows that are trained so long, by learning rate and number of steps."""
        found: dict[Length, list[str]] = {}
        for job in self.jobs:
            labels = found.setdefault(Length.from_recipe(job.cell.recipe, self.images), [])
            labels += [job.cell.label] if job.cell.label not in labels else []
        return found


@dataclass(frozen=True)
class Result:
    """A result holds what came out of a request.

    Attributes:
        leaderboard: the tables, or None where there is no record to make them from.
        written: the files of the leaderboard.
        remark: why there is no table, where none was to be made: only a part of the cells was trained, or workers were
            handed to a scheduler.
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
    remark: str = ""

    @property
    def measurements(self) -> pd.DataFrame:
        """Return a row for each method, known ratio and metric, with its uncertainty; see `measurements.measure`.

        Raises:
            UserError: every cell failed.
        """
        if self.leaderboard is None:
            raise UserError(f"there is nothing to show: {'; '.join(self.failures)}")
        return self.leaderboard.measurements


def plan(
    resolved: Resolved, watcher: Watcher, workers: int = 1, placement: Placement = HERE, study: Study | None = None
) -> Plan:
    """Say which cells have no record yet; nothing is trained, written or deleted.

    Args:
        workers: how many workers are to train them.
        placement: where they train.
        study: the data set under the request's setting, where it was made already.
    """
    options = _options_here(resolved.request, placement)
    study = study or Study(resolved.dataset, options, watcher.report)
    resolved = cells.with_tuned_values(resolved, study)
    jobs = cells.part(cells.jobs_of(resolved, study)[0], resolved.request)
    todo = sweep.missing(jobs, resolved.store)
    score_bytes = 4 * (study.train.labels_NC.size + study.test.labels_NC.size)
    most = resolved.request.group or MOST_CELLS[find_device(options.device)[0]]
    return Plan(jobs, todo, score_bytes, len(study.train), workers, most)


def execute(
    resolved: Resolved,
    watcher: Watcher,
    on_trained: Callable[[], object] = lambda: None,
    study: Study | None = None,
    placement: Placement = HERE,
) -> Result:
    """Train the requested cells that have no record, and make the table of all the requested ones.

    A record that cannot be used is named and stands in no table. A damaged record of a cell that was asked for is moved
    aside, and the cell is trained anew.

    Args:
        on_trained: called when all is trained, before the records are read.
        study: the data set under the request's setting, where it was made already.
        placement: where workers train.

    Raises:
        UserError: bad options or missing data, in which case nothing was trained; or nothing to show.
    """
    request, store, dataset = resolved.request, resolved.store, resolved.dataset
    study = study or Study(dataset, _options_here(request, placement), watcher.report)
    resolved = cells.with_tuned_values(resolved, study)
    jobs, references = cells.jobs_of(resolved, study)
    asked = cells.part(jobs, request)
    failed = _train(asked, resolved, study, watcher, placement) if request.train else []
    on_trained()
    found = _selection(resolved, study, jobs, references, watcher)
    failures = [f"{f.cell.title}: {f.reason} (details in {store.folder(f.cell) / 'failed.json'})" for f in failed]
    failed_methods = list(dict.fromkeys(failure.cell.method for failure in failed))
    handed_on = placement.launcher not in (None, *WAITING)
    if remark := _why_no_table(request, placement, handed_on and bool(sweep.missing(asked, store))):
        return Result(failures=failures, failed_methods=failed_methods, remark=remark)
    if not found.cells:
        if failures:
            return Result(failures=failures, problems=found.problems, failed_methods=failed_methods)
        begun = [
            f"{label} at {100 * ratio:g} %: {why}" for (label, ratio), why in found.missing.items() if why[:3] != "not"
        ]
        reasons = "".join(f"; {line}" for line in [*found.problems, *begun, *found.excluded_records][:3])
        raise UserError(
            f"no records of this setting in {store.in_words(store.root / dataset.name)}{reasons}; train some first, "
            "without --no-train"
        )
    table = _leaderboard(resolved, study, jobs, references, found)
    if request.published:
        table = table.with_tables([_published(table, resolved)])
    if not request.leaderboard:
        return Result(table, (), "", failures, found.problems, failed_methods)
    table, unusable = _with_secondary_tables(table, resolved)
    folder = request.out or store.root / dataset.name
    unwritten = "" if request.out is not None else store.why_not_written or _why_not_writable(folder)
    unwritten = (
        f"{unwritten}, so the table is only printed; name a folder for the files with --out" if unwritten else ""
    )
    ending = "-".join(filter(None, (study.variant(), "tuned" if resolved.tuned is not None else "")))
    files = (
        [] if unwritten else write.write(table, folder, ending, resolved.methods.entries, study.test, watcher.report)
    )
    return Result(table, files, unwritten, failures, [*found.problems, *unusable], failed_methods)


def _options_here(request: Request, placement: Placement) -> Options:
    """Return the options of this process: where others train, it needs no GPU."""
    elsewhere = placement.launcher not in (None, "local")
    return dataclasses.replace(request.options, device="auto") if elsewhere else request.options


def _why_no_table(request: Request, placement: Placement, later: bool) -> str:
    """Say why there is no table; "" where there is to be one.

    Args:
        later: whether cells are left to workers that somebody else starts.
    """
    if placement.launcher == "print" and not later:
        # A scheduler takes what is printed for the command, so that a table must not be.
        return "no cell is left to train, so no command is printed; --no-train in place of --launcher makes the table"
    if request.shard is not None:
        number, of = request.shard
        return (
            f"part {number} of {of} {'is left to the workers' if later else 'is trained'}; when all are trained, bring "
            "their folders to one machine and make the table there, with --no-train and a --results-dir for each"
        )
    return "no table is made now, as workers train later" if later else ""


def _train(
    jobs: Sequence[Job], resolved: Resolved, study: Study, watcher: Watcher, placement: Placement
) -> list[Failed]:
    """Train the cells that have no record; return those that failed."""
    todo = cells.made_ready(jobs, resolved, watcher)
    if not todo:
        return []
    if placement.launcher is not None:
        return launching.launch(todo, resolved, watcher, placement)
    return cells.train_here(todo, resolved, study, watcher, sweep.ALONE)


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
    given = GivenLabels.from_splits(study.train, study.test, own_validation)
    return main.build(
        found.cells,
        [job.cell.label for job in jobs if job.cell.key not in keys],
        resolved.ratios,
        Context(
            differs={name: methods[name].differs for name in _names(methods, found)},
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


def _names(methods: Registry[MethodEntry], found: Selection) -> list[str]:
    """Return the registered methods, and those with a step that are in the table."""
    shown = {evidence.record.cell.method for by_seeds in found.cells.values() for evidence in by_seeds.values()}
    return [*methods, *sorted(name for name in shown if JOINT in name)]


def _about_tuning(resolved: Resolved, jobs: Sequence[Job], found: Selection) -> list[str]:
    """Return lines that say which rows are tuned, by what budget, and which are not."""
    if resolved.tuned is None:
        return []
    asked = {entry.name for entry, _ in resolved.rows}
    by_method = {job.cell.method: job.cell for job in jobs if job.cell.method in asked}
    labels = {method: cell.full_label for method, cell in by_method.items()}
    digests = {method: cell.source_digest for method, cell in by_method.items()}
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
    """Judge those of the papers' claims that the table's rows say something about; set heads beside trainings."""
    judged = claims.judge(table.cells, dataset, table.ratios).measured()
    tables = [judged.table("The papers' claims")] if judged.verdicts else []
    return [*tables, judged.heads.table()] if judged.heads.heads_measured > 1 else tables


def _why_not_writable(folder: Path) -> str:
    """Say why tables cannot be written to a folder; "" if they can."""
    if is_writable(folder):
        return ""
    return f"{folder} is read-only"
