"""This module reads comparisons, claims, predictions and lists from records, without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.leaderboard import comparison, selection
from mlrpl_bench.leaderboard.claims import claims
from mlrpl_bench.leaderboard.evidence import EvidenceGrid
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore, left_out_line
from mlrpl_bench.tools import predict
from mlrpl_bench.tools.predict import Prediction, Wanted
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError


def compare_rows(resolved: Resolved, watcher: Watcher, a: str, b: str) -> comparison.Comparison:
    """Compare two rows, see `functions.compare`."""
    labels: set[str] = set()

    def is_wanted(label: str) -> bool:
        labels.add(label)
        return label in (a, b)

    _, grid = collect(resolved, is_wanted, watcher, lambda: comparison.check(labels, a, b))
    return comparison.compare(grid, a, b, resolved.ratios)


def judge_claims(resolved: Resolved, watcher: Watcher, study: Study | None = None) -> claims.Claims:
    """Judge the papers' claims, see `functions.claims`.

    Args:
        study: the dataset under the request's setting, where it was made already.
    """
    _, grid = collect(resolved, claims.rows_needed().__contains__, watcher, study=study)
    return claims.judge(grid, resolved.dataset.name, resolved.ratios)


@dataclass(frozen=True)
class Answer:
    """An answer holds the scores that a trained cell gives to images.

    Attributes:
        title: the cell's name for people.
        key: the cell's key.
        fitting: how many records fitted what was asked.
        categories: the names of the categories, in the order of the scores.
        predictions: the scores of each image.
    """

    title: str
    key: str
    fitting: int
    categories: Sequence[str]
    predictions: Sequence[Prediction]

    def frame(self) -> pd.DataFrame:
        """Return a row for each image and category, see `functions.predict`."""
        answers = [each.to_json(self.categories) for each in self.predictions]
        rows = [{"image": answer["image"], **row} for answer in answers for row in answer["scores"]]
        return pd.DataFrame(rows, columns=["image", "category", "logit", "probability", "predicted"])


def ask(resolved: Resolved, watcher: Watcher, method: str, images: Sequence[Path], wanted: Wanted) -> Answer:
    """Score images with a trained cell, see `functions.predict`."""
    dataset = resolved.dataset
    entry, wanted = named(resolved, method, wanted)
    study = Study(dataset, resolved.request.options, watcher.report)
    record, fitting = predict.find_record(surveyed(resolved, watcher), entry, study, wanted)
    predictor = predict.Predictor(record, entry, study)
    predictions = []
    for done, path in enumerate(images, start=1):
        predictions.append(predictor(path))
        watcher.report("images", done, len(images))
    title = f"{record.cell.title} on {dataset.name}"
    return Answer(title, record.cell.key, fitting, study.train.categories, predictions)


def named(resolved: Resolved, method: str, wanted: Wanted) -> tuple[MethodEntry, Wanted]:
    """Return the method of a name, and which of its records is wanted; an alias is a method at one known ratio.

    Raises:
        UserError: there is no such method, or an alias is given with a ratio.
    """
    methods = resolved.methods
    if (alias := methods.aliases.get(method)) is not None:
        if wanted.ratio is not None:
            raise UserError(f"{method} stands for {alias.method} at known ratio {alias.ratio:g}; leave --ratio out")
        method = alias.method
        wanted = Wanted(wanted.cell, None if wanted.cell is not None else alias.ratio, wanted.seed)
    return methods[method], wanted


def surveyed(resolved: Resolved, watcher: Watcher) -> Sequence[Record]:
    """Return all records of the data set that can be used; the watcher is told of the others."""
    survey = resolved.store.survey(resolved.dataset.name)
    for problem in survey.problems:
        watcher.problem(problem)
    for reason, folders in survey.excluded_folders.items():
        watcher.note(left_out_line(reason, folders))
    return survey.records


COLUMNS_OF_RECORDS = (
    *("dataset", "method", "known_ratio", "seed", "mask_seed", "key", "title"),
    *("evaluate_on", "mask_scheme", "backbone", "image_size", "epochs", "batch", "precision"),
    *("mAP", "OF1", "CF1", "seconds", "status", "origin", "folder"),
)
"""A frame without records has these columns; with records it has every metric."""


def list_records(store: ResultStore, dataset: str | None, watcher: Watcher) -> pd.DataFrame:
    """Read which cells have records, see `functions.records`."""
    there = store.datasets()
    if dataset is not None and dataset not in there:
        raise UserError(
            f"no records of {dataset!r} in {store.in_words(store.root)}; there are: {', '.join(there) or 'none'}"
        )
    rows = []
    for name in there if dataset is None else [dataset]:
        survey = store.survey(name)
        for problem in survey.problems:
            watcher.problem(problem)
        for reason, folders in survey.excluded_folders.items():
            watcher.note(left_out_line(reason, folders))
        for record in survey.records:
            cell, setting = record.cell, record.cell.setting
            row: dict[str, Any] = {"dataset": name, "method": cell.label, "known_ratio": cell.ratio}
            row |= {"seed": cell.seed, "mask_seed": cell.mask_seed, "key": cell.key, "title": cell.title}
            row |= {name: getattr(setting, name) for name in ("evaluate_on", "mask_scheme", "backbone", "image_size")}
            row |= {name: getattr(setting, name) for name in ("epochs", "batch", "precision")}
            numbers = {name: value for name, value in record.metrics.items() if isinstance(value, (int, float))}
            row |= {name: 100 * value for name, value in numbers.items()}
            row |= {"seconds": record.content.get("cost", {}).get("seconds", math.nan)}
            row |= {"status": record.origin.status, "origin": record.origin.to_text()}
            row |= {"folder": store.in_words(record.folder)}
            rows.append(row)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS_OF_RECORDS))


def unfinished(store: ResultStore, dataset: str) -> dict[Path, str]:
    """List the folders of a data set's cells that were begun and have no record, each with where it stands."""
    return selection.unfinished(store, dataset)


def collect(
    resolved: Resolved,
    is_wanted: Callable[[str], bool],
    watcher: Watcher,
    check: Callable[[], None] = lambda: None,
    study: Study | None = None,
) -> tuple[Study, EvidenceGrid]:
    """Collect the evidence of the rows that are wanted, of all seeds; the study is the data set under the setting.

    Args:
        is_wanted: says of a row's label whether it is wanted.
        check: called when all row labels have been asked for.
        study: as in `judge_claims`.

    Raises:
        UserError: there are no records of these rows.
    """
    mask_seed = resolved.request.mask_seed
    study = study or Study(resolved.dataset, resolved.request.options, watcher.report)
    found = selection.select(
        study,
        resolved.methods.entries,
        resolved.store,
        lambda cell: (
            is_wanted(cell.label)
            and cell.ratio in resolved.ratios
            and cell.mask_seed == (cell.seed if mask_seed is None else mask_seed)
        ),
        report=watcher.report,
    )
    for line in found.problems:
        watcher.problem(line)
    for line in found.excluded_records:
        watcher.note(line)
    if not found.cells:
        place = resolved.store.in_words(resolved.store.root / resolved.dataset.name)
        raise UserError(f"no records of these methods and of this setting in {place}; train some first")
    check()
    return study, found.cells
