"""A leaderboard as the plain data that the page's figures are drawn from, and which rows they show at first."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlrpl_bench.leaderboard.evidence import INFLUENCED, Evidence
from mlrpl_bench.leaderboard.measurements import CATEGORY, RECOVERY, average_name
from mlrpl_bench.leaderboard.report import curves as training
from mlrpl_bench.leaderboard.tables.main import Leaderboard

STRONGEST = 5
"""So many of the strongest rows are drawn before anyone chooses."""
STYLES = 8
"""Lines that colour, dash and marker tell apart."""
MANY = 300
"""Of more cells than this, each training curve gets fewer points."""


def methods(table: Leaderboard) -> list[str]:
    """The rows that are trained, from strong to weak; those without an average last."""
    found = means(table, "mAP", average_name(table.ratios))
    rows = [label for label in table.labels if label not in table.context.lines]
    return sorted(rows, key=lambda label: -found.get(label, -math.inf))


def chosen(table: Leaderboard, defaults: Collection[str] = ()) -> list[str]:
    """Rows that figures show at first: the strongest, the weakest and the default ones; from strong to weak."""
    ranked = [label for label in methods(table) if any((label, ratio) in table.cells for ratio in table.ratios)]
    of_defaults = [label for label in ranked if label in defaults][: STYLES - 1]
    strong = max(1, min(STRONGEST, STYLES - 1 - len(of_defaults)))
    picked = {*ranked[:strong], *ranked[-1:], *of_defaults}
    return [label for label in ranked if label in picked][:STYLES]


def compared(rows: Sequence[str], defaults: Collection[str] = ()) -> str | None:
    """The row that the strongest, which is the first, is shown beside: the strongest default one, or else the next.

    The weakest of many differs in everything, which says nothing about any category.

    >>> compared(["kggr", "sst", "sarb", "an"], ["ssgrl", "sarb"]), compared(["kggr", "sst"]), compared(["kggr"])
    ('sarb', 'sst', None)
    """
    others = list(rows[1:])
    return next((row for row in others if row in defaults), others[0] if others else None)


def means(table: Leaderboard, metric: str, known_ratio: str) -> dict[str, float]:
    """By row, where there is a number."""
    frame = table.measurements
    of_place = frame[(frame["metric"] == metric) & (frame["known_ratio"] == known_ratio)]
    return {label: mean for label, mean in zip(of_place["method"], of_place["mean"], strict=True) if mean == mean}


def curves(table: Leaderboard, metric: str) -> dict[str, list[list[float | None]]]:
    """By row: known ratio, mean, low and high of each ratio that has a number, in percent.

    Where a metric has no interval, low and high are one standard deviation over seeds away, or None for one seed.
    """
    wanted = {f"{ratio:g}": ratio for ratio in table.ratios}
    found: dict[str, list[list[float | None]]] = {}
    frame = table.measurements[table.measurements["metric"] == metric]
    for row in frame.itertuples(index=False):
        if row.known_ratio in wanted and row.mean == row.mean:
            low, high = (row.low, row.high) if row.low == row.low else (row.mean - row.std, row.mean + row.std)
            points = found.setdefault(row.method, [])
            points.append([wanted[row.known_ratio], *map(number, (row.mean, low, high))])
    return found


def by_category(table: Leaderboard) -> dict[str, dict[str, list[float | None]]]:
    """By row and known ratio, also their average: the average precision of each category, in percent."""
    frame = table.measurements[table.measurements["metric"].str.startswith(CATEGORY)]
    found: dict[str, dict[str, list[float | None]]] = {}
    for label, known_ratio, mean in zip(frame["method"], frame["known_ratio"], frame["mean"], strict=True):
        found.setdefault(label, {}).setdefault(known_ratio, []).append(number(mean, 4))
    return {
        label: {ratio: values for ratio, values in of_label.items() if any(value is not None for value in values)}
        for label, of_label in found.items()
    }


def courses(
    table: Leaderboard, rows: Iterable[str], ratios: Iterable[float], points: int
) -> dict[str, dict[str, training.Course]]:
    """By row and known ratio, see `training.course`."""
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
    """All that the page's script draws from; JSON without NaN."""
    rows, average = methods(table), average_name(table.ratios)
    num_cells = sum(len(of_place) for of_place in table.cells.values())
    trained = courses(table, rows, table.ratios, training.POINTS if num_cells <= MANY else training.POINTS // 2)
    return {
        "rows": rows,
        "lines": [label for label in table.labels if label in table.context.lines],
        "chosen": chosen(table, defaults),
        "compared": compared(chosen(table, defaults), defaults),
        "ratios": [f"{ratio:g}" for ratio in table.ratios],
        "average": average,
        "metrics": {metric: curves(table, metric) for metric in INFLUENCED},
        "recovery": curves(table, RECOVERY),
        "categories": [table.context.given.category_title(name) for name in table.context.categories],
        "complete": table.context.given.train_unknown == 0,
        "precision": by_category(table),
        "training": {
            label: {ratio: _plain(of_ratio) for ratio, of_ratio in of_label.items()}
            for label, of_label in trained.items()
        },
    }


def unique(cells: Iterable[Mapping[Any, Evidence]]) -> list[Evidence]:
    """Each cell once, however many places show it; by known ratio and seeds."""
    by_key = {evidence.record.cell.key: evidence for of_place in cells for evidence in of_place.values()}
    return sorted(by_key.values(), key=lambda e: (e.record.cell.ratio, *e.seeds, e.record.cell.key))


def number(value: float, digits: int = 5) -> float | None:
    """With so many significant digits; None for NaN, which JSON does not have.

    >>> number(12.345678), number(float("nan"))
    (12.346, None)
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _plain(of: training.Course) -> dict[str, Any]:
    return {
        "epochs": of.epochs,
        "loss": {name: [number(value, 3) for value in values] for name, values in of.terms.items()},
        "epoch": {
            name: [number(value, 4) for value in values]
            for name, values in of.columns.items()
            if np.isfinite(values).any()
        },
    }
