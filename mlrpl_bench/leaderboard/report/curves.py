"""Reads what was logged while cells trained and averages it over seeds: curves for the page and the figures."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.leaderboard.evidence import Evidence
from mlrpl_bench.records.record import read_arrays
from mlrpl_bench.utils.errors import UserError

POINTS = 200
"""A curve of steps has at most so many points; each is the mean of a window of steps."""
KEPT = ("scalar.", "pseudo.", "test.mAP")
"""Columns of history.csv that are drawn epoch by epoch; loss terms are drawn from their steps."""


@dataclass(frozen=True, eq=False)
class Course:
    """A course says how the cells of one row and known ratio trained.

    Attributes:
        epochs: how many there were.
        terms: by loss term, means over windows of steps, evenly spaced over the epochs; NaN while it was switched off.
        columns: by column of ``history.csv``, a value an epoch.
    """

    epochs: int
    terms: Mapping[str, NDArray[np.float64]]
    columns: Mapping[str, NDArray[np.float64]]


def course(cells: Iterable[Evidence], points: int = POINTS) -> Course:
    """Read the course of cells that differ in their seeds alone; an unreadable file counts as not there."""
    return averaged([course_of(cell.record.folder, points) for cell in cells])


def course_of(folder: Path, points: int = POINTS) -> Course:
    """Read the course of the cell whose files lie in a folder; an unreadable file counts as not there."""
    history = _history(folder / "history.csv")
    return Course(
        len(history.get("epoch", ())),
        {name: thinned(values_S, points) for name, values_S in _steps(folder / "steps.npz").items()},
        {name: values_E for name, values_E in history.items() if name.startswith(KEPT)},
    )


def averaged(courses: Sequence[Course]) -> Course:
    """Average the courses of cells that differ in their seeds alone, point by point."""
    terms: dict[str, list[NDArray[np.float64]]] = {}
    columns: dict[str, list[NDArray[np.float64]]] = {}
    for each in courses:
        for name, values_S in each.terms.items():
            terms.setdefault(name, []).append(values_S)
        for name, values_E in each.columns.items():
            columns.setdefault(name, []).append(values_E)
    return Course(
        max((each.epochs for each in courses), default=0),
        {name: _mean(curves) for name, curves in sorted(terms.items())},
        {name: _mean(curves) for name, curves in sorted(columns.items())},
    )


def thinned(values_S: NDArray, points: int) -> NDArray[np.float64]:
    """Average over equally long windows, of which there are at most `points`.

    >>> thinned(np.array([1.0, 3.0, 5.0, np.nan, np.nan, np.nan]), 3)
    array([ 2.,  5., nan])
    """
    window = max(1, -(-len(values_S) // points))
    values_S = np.asarray(values_S, dtype=np.float64)
    padded_S = np.pad(values_S, (0, -len(values_S) % window), constant_values=np.nan)
    return _nanmean(padded_S.reshape(-1, window).T) if len(values_S) else values_S


def _mean(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Average point by point, over what there is."""
    longest = max(map(len, curves))
    return _nanmean(np.array([np.pad(curve, (0, longest - len(curve)), constant_values=np.nan) for curve in curves]))


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the first axis, without what is not finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a point that no curve has stays NaN
        return np.nanmean(np.where(np.isfinite(values), values, np.nan), axis=0)


def _history(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        names = list(rows[0]) if rows else []
        if None in names:  # a row is longer than the header
            return {}
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except (OSError, ValueError, TypeError, csv.Error):
        return {}


def _steps(path: Path) -> dict[str, NDArray]:
    try:
        arrays = read_arrays(path) if path.is_file() else {}
        return {name: array for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim == 1}
    except UserError:
        return {}
