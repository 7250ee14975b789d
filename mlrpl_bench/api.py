"""What ``run`` and ``leaderboard`` do: plan the cells, train what is missing, make the table from the records."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlrpl_bench.cli.display import Display
from mlrpl_bench.data.dataset import NINE_RATIOS, Preset
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.data.protocol import COMPLETE_AT_ONE, check_ratio
from mlrpl_bench.leaderboard.claims import claims, published
from mlrpl_bench.leaderboard.evidence import Collector
from mlrpl_bench.leaderboard.measurements import Lookup
from mlrpl_bench.leaderboard.selection import Selection, select
from mlrpl_bench.leaderboard.tables import dataset_ranks
from mlrpl_bench.leaderboard.tables.main import Context, Leaderboard, build
from mlrpl_bench.models.hyperparameters import parse_assignments as parse_assignments
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
from mlrpl_bench.records import matching
from mlrpl_bench.records.cell import Cell, Finished, Job
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.steps import Length
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import Table, counted, from_text


@dataclass(frozen=True)
class Request:
    """The cells that are asked for.

    Attributes:
        rows: methods, each with the hyper-parameters that the user changed.
        seeds: pairs of training seed and mask seed.
        group: how many cells are trained side by side, None for as many as fit in memory.
        checkpoint_seconds: how much work may be lost.
        only_these_rows: leave other methods' records out of the table.
        leaderboard: whether the table gets its upper line (the registered aliases), and is written to files.
        published: whether the papers' own numbers get a table.
    """

    rows: Sequence[tuple[MethodEntry, dict[str, str]]]
    ratios: Sequence[float]
    seeds: Sequence[tuple[int, int]]
    keep_weights: bool = True
    group: int | None = None
    checkpoint_seconds: float = sweep.CHECKPOINT_SECONDS
    only_these_rows: bool = False
    leaderboard: bool = False
    published: bool = False


@dataclass(frozen=True)
class Plan:
    """What would be trained."""

    jobs: Sequence[Job]
    todo: Sequence[Job]
    score_bytes: int
    images: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        todo = [job.cell.title for job in self.todo]
        trainings = [{"methods": names, **length.to_json()} for length, names in self._lengths().items()]
        size = self.score_bytes * len(todo)
        return {"cells": len(self.jobs), "to_train": todo, "score_bytes": size, "trainings": trainings}

    def to_text(self) -> str:
        """For people."""
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
        """By learning rate and number of steps, the rows that are trained so."""
        found: dict[Length, list[str]] = {}
        for job in self.jobs:
            labels = found.setdefault(Length.of(job.cell.recipe, self.images), [])
            labels += [job.cell.label] if job.cell.label not in labels else []
        return found


@dataclass(frozen=True)
class Result:
    """What came out: a plan (dry run) or a leaderboard, files written, cells that failed, records not used.

    Attributes:
        failures: a line for each cell that failed.
        failed_methods: the methods of these cells, each once.
    """

    plan: Plan | None = None
    leaderboard: Leaderboard | None = None
    written: Sequence[Path] = ()
    failures: Sequence[str] = field(default_factory=list)
    problems: Sequence[str] = field(default_factory=list)
    failed_methods: Sequence[str] = ()


def compare(
    request: Request,
    dataset: DatasetEntry,
    options: Options,
    methods: Registry[MethodEntry],
    store: ResultStore,
    *,
    dry_run: bool = False,
    no_train: bool = False,
    on_trained: Callable[[], object] = lambda: None,
) -> Result:
    """Train the requested cells that have no record and make the table of all the requested ones.

    A record that cannot be used is named and stands in no table. One of a cell that was asked for is moved aside and
    the cell is trained anew.

    Args:
        on_trained: called when all is trained, before the records are read.

    Raises:
        UserError: bad options, missing data, or nothing to show; nothing was trained then.
    """
    with Display() as display:
        study = Study(dataset, options, display.report)
        jobs, lines = _jobs(request, study, methods)
        todo = sweep.missing(jobs, store)
        if dry_run:
            score_bytes = 4 * (study.train.labels_NC.size + study.test.labels_NC.size)
            return Result(plan=Plan(jobs, todo, score_bytes, len(study.train)))
        failures = [] if no_train else _train(todo, request, study, store, display)
        on_trained()
        found = _selection(request, study, methods, store, jobs, lines, display)
    described = [f"{f.cell.title}: {f.reason} (details in {store.folder(f.cell) / 'failed.json'})" for f in failures]
    failed_methods = list(dict.fromkeys(failure.cell.method for failure in failures))
    if not found.cells:
        if failures:
            return Result(failures=described, problems=found.problems, failed_methods=failed_methods)
        reasons = "".join(f"; {line}" for line in [*found.problems, *found.left_out][:3])
        raise UserError(
            f"no records of this setting in {store.root / dataset.name}{reasons}; train some first, without --no-train"
        )
    table = _leaderboard(request, study, methods, jobs, lines, found)
    if request.published:
        table = table.with_tables([_published(table, methods, options, dataset.name)])
    written: list[Path] = []
    if request.leaderboard:
        ranked = dataset_ranks.rank(dataset.name, _means(table), store, methods.entries)
        profiled, unusable = _profile(store, dataset.name)
        more = [each for each in (ranked, profiled) if each is not None]
        table = table.with_tables([*more, *_claims(table, dataset.name)])
        found.problems.extend(unusable)
        with Display() as display:
            written = _write(table, study, methods, store, variant(options, dataset.preset), display)
    return Result(None, table, written, described, found.problems, failed_methods)


def table_files(table: Leaderboard, ending: str) -> dict[str, str]:
    """The tables of a leaderboard as files, by name."""
    return {
        f"leaderboard{ending}.csv": table.to_csv(),
        f"leaderboard{ending}.md": table.to_markdown(),
        f"leaderboard{ending}.tex": table.to_latex(),
        f"measurements{ending}.csv": table.tidy_csv(),
    }


def _write(
    table: Leaderboard, study: Study, methods: Registry[MethodEntry], store: ResultStore, variant: str, display: Display
) -> list[Path]:
    """Tables, figures and the page; those of another setting than the data set's usual one say so in their names."""
    from mlrpl_bench.leaderboard.report import (  # takes a second, and most commands write nothing
        examples,
        figures,
        page,
    )

    ending = f"-{variant}" if variant else ""
    display.report("drawing", 0, 2)
    files: dict[str, str | bytes] = {**table_files(table, ending)}
    defaults = [name for name in methods if methods[name].default]
    drawn = {f"figures{ending}/{name}": content for name, content in figures.draw_all(table, defaults).items()}
    display.report("drawing", 1, 2)
    files[f"index{ending}.html"] = page.render(
        table,
        pictures=examples.draw(table, study.test),
        defaults=defaults,
        papers={name: methods[name].paper for name in methods},
        files=[*files, *drawn],
    )
    display.report("drawing", 2, 2)
    return [store.write_table(study.setting.dataset, name, content) for name, content in {**files, **drawn}.items()]


def variant(options: Options, preset: Preset) -> str:
    """What of the options makes another setting than the data set's usual one: ``val-by_id-epochs=5``, or nothing."""
    parts = [options.evaluate_on, options.mask_scheme, options.image_backend, options.precision, options.on_bad_image]
    usual = ["test", "hcp", "reference", "32-true", "error"]
    words = [word for word, of_usual in zip(parts, usual, strict=True) if word != of_usual]
    if options.compile:
        words.append("compile")
    if options.mask_file is not None:
        words.append(f"mask={options.mask_file.stem}")
    for name in ("epochs", "batch", "image_size", "backbone"):
        if getattr(options, name) not in (None, getattr(preset, name)):
            words.append(f"{name}={getattr(options, name)}")
    if options.weights is not None:
        words.append(f"weights={Path(options.weights).stem}")
    words += [f"{name}={value}" for name, value in sorted(options.data.items())]
    return re.sub(r"[^\w=.,-]", "_", "-".join(words))[:150]


def _jobs(request: Request, study: Study, methods: Registry[MethodEntry]) -> tuple[list[Job], dict[str, list[Job]]]:
    """All cells that are asked for, and those among them that are drawn as lines."""
    jobs = [
        study.job(entry, ratio, seed, mask_seed, changed)
        for entry, changed in request.rows
        for ratio in request.ratios
        for seed, mask_seed in request.seeds
    ]
    lines = _lines(request, study, methods)
    keys = {job.cell.key for job in jobs}
    return [*jobs, *(job for of_line in lines.values() for job in of_line if job.cell.key not in keys)], lines


def _train(todo: Sequence[Job], request: Request, study: Study, store: ResultStore, display: Display) -> list[Failed]:
    records = store.survey(study.setting.dataset).records
    for name in sorted({job.cell.method for job in todo if matching.edited_since(job.cell, records)}):
        display.console.print(f"the file of {name} changed since its record; its cells are trained anew")
    for job in todo:
        if (reason := store.damage(job.cell)) is not None and (moved := store.set_aside(job.cell)) is not None:
            display.console.print(f"{reason}; moved to {moved}, trained anew", markup=False)
    collector = Collector(study.train, study.test, study.masks)
    failures, done = [], 0
    for job, event in sweep.run(todo, study, store, request.keep_weights, request.group, request.checkpoint_seconds):
        display.cells(done, len(todo))
        display.event(job.cell.title, job.cell.recipe.epochs or 0, event)
        if isinstance(event, Failed):
            failures.append(event)
        if isinstance(event, Finished) and (record := store.find(job.cell)) is not None:
            with contextlib.suppress(UserError):  # the table names it
                collector.of(record)
        done += display.ends_a_cell(event)
    return failures


def _lines(request: Request, study: Study, methods: Registry[MethodEntry]) -> dict[str, list[Job]]:
    """The cells behind the lines that every leaderboard has, such as the upper one: one for each seed."""
    if not request.leaderboard or study.setting.mask_scheme not in COMPLETE_AT_ONE:
        return {}
    return {
        alias.name: [
            study.job(methods[alias.method], alias.ratio, seed, mask_seed, {}) for seed, mask_seed in request.seeds
        ]
        for alias in methods.aliases.values()
    }


def _selection(
    request: Request,
    study: Study,
    methods: Registry[MethodEntry],
    store: ResultStore,
    jobs: Sequence[Job],
    lines: Mapping[str, Sequence[Job]],
    display: Display,
) -> Selection:
    """The table's records: the requested ratios and seeds; other methods that were trained so stand beside."""
    asked, hashes = {job.cell.label for job in jobs}, {job.cell.mask_hash for job in jobs}

    def wanted(cell: Cell) -> bool:
        return (
            (cell.seed, cell.mask_seed) in request.seeds
            and cell.ratio in request.ratios
            and (study.setting.mask_scheme != FROM_FILE or cell.mask_hash in hashes)
            and (cell.label in asked or not request.only_these_rows)
        )

    return select(
        study,
        methods.entries,
        store,
        wanted,
        asked=[job.cell for job in jobs if wanted(job.cell)],
        lines={name: [job.cell for job in of_line] for name, of_line in lines.items()},
        ratios=request.ratios,
        report=display.report,
    )


def _leaderboard(
    request: Request,
    study: Study,
    methods: Registry[MethodEntry],
    jobs: Sequence[Job],
    lines: Mapping[str, Sequence[Job]],
    found: Selection,
) -> Leaderboard:
    of_lines = {job.cell.key for of_line in lines.values() for job in of_line}
    return build(
        found.cells,
        [job.cell.label for job in jobs if job.cell.key not in of_lines],
        request.ratios,
        Context(
            differs={name: methods[name].differs for name in methods},
            deviations=study.deviations(),
            lines={
                name: f"{of_line[0].cell.method} with {100 * of_line[0].cell.ratio:g} % of the labels known"
                for name, of_line in lines.items()
            },
            categories=study.test.categories,
            left_out=found.left_out,
            stalled=found.stalled,
        ),
        found.holes,
    )


def _published(table: Leaderboard, methods: Registry[MethodEntry], options: Options, dataset: str) -> Table:
    """The papers' numbers beside ours, which must be of the papers' data."""
    if options.evaluate_on != "test" or options.data or options.mask_scheme != "hcp" or options.mask_file is not None:
        raise UserError(
            "--published sets the papers' numbers beside test numbers of the usual data and masks; leave out "
            "--evaluate-on, --set-data, --mask-scheme and --mask-file"
        )
    names = {name: methods[name].published for name in methods}
    found = published.published_table(table.measurements, dataset, names, table.ratios)
    if not found.lines:
        raise UserError(f"there are no published numbers on {dataset} at these ratios; leave --published out")
    return from_text("published", "Published numbers beside ours", published.HEADER, found.rows(), found.notes())


def _profile(store: ResultStore, dataset: str) -> tuple[Table | None, list[str]]:
    """The table that `profile --save` left, or what is wrong with it."""
    from mlrpl_bench.tools.profiling import step_costs

    try:
        return step_costs.Profile.read(store.root / dataset / step_costs.FILE).table(), []
    except FileNotFoundError:
        return None, []
    except UserError as error:
        return None, [str(error)]


def _means(table: Leaderboard) -> dataset_ranks.Means:
    """mAP of the rows that take part in rankings, averaged over seeds."""
    found = Lookup(table.measurements)
    means = {
        (label, ratio): float(found.row(label, f"{ratio:g}", "mAP").mean)
        for label in table.labels
        for ratio in table.ratios
        if label not in table.context.lines
    }
    return {place: mean for place, mean in means.items() if not math.isnan(mean)}


def _claims(table: Leaderboard, dataset: str) -> list[Table]:
    """Those of the papers' claims that the table's rows say something about."""
    judged = claims.judge(table.cells, dataset, table.ratios).measured()
    if not judged.verdicts:
        return []
    return [from_text("claims", "The papers' claims", claims.HEADER, judged.rows(), judged.notes(), wraps=True)]


def ratios(text: str | None, preset: Preset, options: Options) -> tuple[float, ...]:
    """``0.1,0.5`` or ``all`` to known ratios in ascending order; None is the preset's, 1 for one label an image."""
    if options.mask_file is not None and (text is None or text == "all" or "," in text):
        raise UserError("--mask-file is one mask: name its known ratio with --ratios, such as 0.1")
    if text is None:
        return (1.0,) if options.mask_scheme == "single_positive" else preset.ratios
    if text == "all":
        return NINE_RATIOS
    chosen = set()
    for part in text.split(","):
        try:
            chosen.add(float(part))
        except ValueError:
            raise UserError(f"--ratios {text}: {part!r} is no number; write 0.1,0.5 or all") from None
        check_ratio(float(part))
    return tuple(sorted(chosen))


def seed_pairs(count: int, mask_seed: int | None) -> list[tuple[int, int]]:
    """Training seed and mask seed: the same, unless one mask is held fixed."""
    if count < 1:
        raise UserError(f"--seeds {count} must be at least 1")
    if mask_seed is not None and not 0 <= mask_seed < 2**32:
        raise UserError(f"--mask-seed {mask_seed} must be between 0 and {2**32 - 1}")
    return [(seed, seed if mask_seed is None else mask_seed) for seed in range(count)]


def group(text: str) -> int | None:
    """A group of at least one cell; None, for as many as fit in memory, is ``auto``."""
    if text == "auto":
        return None
    try:
        size = int(text)
    except ValueError:
        raise UserError(f"--group {text} is neither auto nor a number of cells") from None
    if size < 1:
        raise UserError(f"--group {size} must be at least 1")
    return size


def keep_weights(text: str) -> bool:
    """``last`` or ``none``."""
    if text not in ("last", "none"):
        raise UserError(f"--keep-weights {text} is not valid; it is last or none")
    return text == "last"


def chosen_methods(methods: Registry[MethodEntry], text: str | None) -> list[MethodEntry]:
    """Methods by name, ``all``, ``paper`` (those with published numbers), or None for the basic ones."""
    entries = [methods[name] for name in methods]
    if text is None:
        return [entry for entry in entries if entry.default]
    if text == "all":
        return entries
    if text == "paper":
        return [entry for entry in entries if entry.published]
    return [methods[name] for name in dict.fromkeys(part.strip() for part in text.split(","))]
