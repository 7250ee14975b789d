"""Turns a leaderboard into the plain data that figures are drawn from, and chooses the rows they show at first."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlrpl_bench.evaluation.metrics import REPORTED
from mlrpl_bench.leaderboard.evidence import Evidence
from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.leaderboard.numbers import CATEGORY, RECOVERY
from mlrpl_bench.leaderboard.report import curves as training
from mlrpl_bench.leaderboard.tables.main import Leaderboard

STRONGEST = 5
"""This many of the strongest rows are drawn before anyone chooses."""
STYLES = 8
"""Colour, dash and marker tell this many lines apart."""
MANY = 300
"""Each training curve gets fewer points where there are more cells than this."""
MOST_ROWS = 50
"""A page draws by training and category at most this many rows, the strongest ones, besides the chosen ones."""


def methods(table: Leaderboard) -> list[str]:
    """Sort the rows that are trained from strong to weak; those without an average come last."""
    found = table.lookup.means("mAP", average_name(table.ratios))
    rows = [label for label in table.labels if label not in table.context.reference_rows]
    return sorted(rows, key=lambda label: -found.get(label, -math.inf))


def chosen(table: Leaderboard, defaults: Collection[str] = ()) -> list[str]:
    """Choose the rows that figures show at first: the strongest, the weakest and the default ones, sorted."""
    ranked = [label for label in methods(table) if any((label, ratio) in table.cells for ratio in table.ratios)]
    chosen_defaults = [label for label in ranked if label in defaults][: STYLES - 1]
    strong = max(1, min(STRONGEST, STYLES - 1 - len(chosen_defaults)))
    picked = {*ranked[:strong], *ranked[-1:], *chosen_defaults}
    return [label for label in ranked if label in picked][:STYLES]


def compared(rows: Sequence[str], defaults: Collection[str] = ()) -> str | None:
    """Choose the row that the first, the strongest, is shown beside: the strongest default one, or else the next.

    The weakest of many differs in everything, which says nothing about any category.

    >>> compared(["kggr", "sst", "sarb", "an"], ["ssgrl", "sarb"]), compared(["kggr", "sst"]), compared(["kggr"])
    ('sarb', 'sst', None)
    """
    others = list(rows[1:])
    return next((row for row in others if row in defaults), others[0] if others else None)


def curves(table: Leaderboard, metric: str) -> dict[str, list[list[float | None]]]:
    """List known ratio, mean, low and high of each ratio that has a number, by row, in percent.

    Where a metric has no interval, low and high are one standard deviation over seeds away, or None for one seed.
    """
    found: dict[str, list[list[float | None]]] = {}
    for label in table.labels:
        for ratio in table.ratios:
            row = table.lookup.row(label, f"{ratio:g}", metric)
            if math.isnan(row.mean):
                continue
            low, high = (row.mean - row.std, row.mean + row.std) if math.isnan(row.low) else (row.low, row.high)
            found.setdefault(label, []).append([ratio, *map(number, (row.mean, low, high))])
    return found


def by_category(table: Leaderboard) -> dict[str, dict[str, list[float | None]]]:
    """List each category's average precision, by row and known ratio or their average, in percent."""
    if not table.context.categories:
        return {}
    known_ratios = [*(f"{ratio:g}" for ratio in table.ratios), average_name(table.ratios)]
    metrics = [f"{CATEGORY}{name}" for name in table.context.categories]
    found = {
        label: {
            known_ratio: [number(table.lookup.row(label, known_ratio, metric).mean, 4) for metric in metrics]
            for known_ratio in known_ratios
        }
        for label in table.labels
    }
    return {
        label: {ratio: values for ratio, values in by_ratio.items() if any(value is not None for value in values)}
        for label, by_ratio in found.items()
    }


def courses(
    table: Leaderboard, rows: Iterable[str], ratios: Iterable[float], points: int
) -> dict[str, dict[str, training.Course]]:
    """Read the course of training by row and known ratio, see `curves.course`."""
    ratios = list(ratios)
    return {
        label: {
            f"{ratio:g}": training.course(table.cells[label, ratio].values(), points)
            for ratio in ratios
            if table.cells.get((label, ratio))
        }
        for label in rows
    }


def page_data(table: Leaderboard, defaults: Collection[str] = ()) -> dict[str, Any]:
    """Collect all that the script of a single page draws from; JSON without NaN."""
    rows = methods(table)
    drawn = {*rows[:MOST_ROWS], *chosen(table, defaults), *table.context.reference_rows}
    trained = training_data(table, [label for label in rows if label in drawn])
    precision = {label: values for label, values in by_category(table).items() if label in drawn}
    return {**board_data(table, trained, precision, defaults), "precision": precision, "training": trained}


def board_data(
    table: Leaderboard,
    trained: Mapping[str, Mapping[str, Any]],
    precision: Mapping[str, Mapping[str, Any]],
    defaults: Collection[str] = (),
) -> dict[str, Any]:
    """Collect what the page's script draws from, but for what belongs to a single row.

    Args:
        trained: see `training_data`.
        precision: see `by_category`.
        defaults: rows that figures show at first besides the strongest and the weakest.
    """
    rows, average, shown = methods(table), average_name(table.ratios), chosen(table, defaults)
    return {
        "rows": rows,
        "lines": [label for label in table.labels if label in table.context.reference_rows],
        "chosen": shown,
        "compared": compared(shown, defaults),
        "ratios": [f"{ratio:g}" for ratio in table.ratios],
        "average": average,
        "metrics": {metric: curves(table, metric) for metric in REPORTED},
        "recovery": curves(table, RECOVERY),
        "categories": [table.context.given.category_title(name) for name in table.context.categories],
        "complete": table.context.given.train_unknown == 0,
        "trained": [label for label in rows if trained.get(label)],
        "barred": [label for label in rows if precision.get(label)],
        "averaged": any(average in precision.get(label, ()) for label in rows),
        "telling": next((label for label in shown if _logs_more_than_its_loss(trained.get(label, {}))), None),
    }


def training_data(table: Leaderboard, rows: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Read how the cells of some rows trained, as plain data by row and known ratio; see `curves.course`."""
    num_cells = sum(len(by_seeds) for by_seeds in table.cells.values())
    points = training.POINTS if num_cells <= MANY else training.POINTS // 2
    return {
        label: {ratio: plain_course(course) for ratio, course in by_ratio.items()}
        for label, by_ratio in courses(table, rows, table.ratios, points).items()
    }


def _logs_more_than_its_loss(by_ratio: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether a row has a curve besides its loss terms and its mAP; such a row is shown first."""
    return any(len(course["epoch"]) > 1 for course in list(by_ratio.values())[:1])


def unique(cells: Iterable[Mapping[Any, Evidence]]) -> list[Evidence]:
    """List each cell once, however many places show it, by known ratio and seeds."""
    by_key = {evidence.record.cell.key: evidence for by_seeds in cells for evidence in by_seeds.values()}
    return sorted(by_key.values(), key=lambda e: (e.record.cell.ratio, *e.seeds, e.record.cell.key))


def number(value: float, digits: int = 5) -> float | None:
    """Round to so many significant digits; None for NaN and infinity, which JSON does not have.

    >>> number(12.345678), number(float("nan"))
    (12.346, None)
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def plain_course(course: training.Course) -> dict[str, Any]:
    """Turn a course into plain data of few digits; what is nowhere a number is left out of the epochs' curves."""
    return {
        "epochs": course.epochs,
        "loss": {name: [number(value, 3) for value in values] for name, values in course.terms.items()},
        "epoch": {
            name: [number(value, 4) for value in values]
            for name, values in course.columns.items()
            if np.isfinite(values).any()
        },
    }
