"""Names the numbers of a cell that tables show, with their units, and takes them from the cell's evidence.

Shares are in percent, so differences of them are in percent points; the loss fluctuation keeps its own unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlrpl_bench.evaluation import metrics, thresholds
from mlrpl_bench.leaderboard.evidence import Evidence
from mlrpl_bench.models.method import AVERAGED, RAW
from mlrpl_bench.records.record import OTHER_WEIGHTS

CATEGORY = "AP: "
"""Begins the name of the metric that is one category's average precision."""

RECOVERY = "recovery"
FLUCTUATION = "loss_fluctuation"
"""The key of the loss fluctuation, as ``facts/claims.csv`` has it; in a table its name has a blank."""

COST_UNITS = {
    "seconds": ("seconds", "s", 1.0),
    "images_per_second": ("images_per_second", "1/s", 1.0),
    "peak_memory_bytes": ("peak_memory", "GB", 1e9),
    "cells_in_group": ("cells_in_group", "", 1.0),
}
"""This maps a name in a record to the name in tables, the unit there, and how many of the record's units it holds."""

COSTS = tuple(name for name, _, _ in COST_UNITS.values())
"""The names that tables have for costs."""


@dataclass(frozen=True)
class Metric:
    """A metric is a number of a cell, with its name and unit in tables.

    Attributes:
        name: what the tables call it.
        unit: of the number in tables, such as ``%``; empty for a number without one.
        value: takes the number from a cell's evidence, in that unit; NaN where the cell has none.
    """

    name: str
    unit: str
    value: Callable[[Evidence], float]


def category(number: int, name: str) -> Metric:
    """Make the metric that is one category's average precision.

    Args:
        number: the category's place among the data set's categories.
        name: the category's name.
    """
    return Metric(f"{CATEGORY}{name}", "%", lambda evidence: 100 * evidence.record.metrics["AP_C"][number])


def best_epoch(metric: str) -> str:
    """Name a metric of the epoch with the highest mAP: ``mAP (best epoch)``."""
    return f"{metric} (best epoch)"


def best_on_validation(metric: str) -> str:
    """Name a metric of the epoch that was the best on validation images: ``mAP (best epoch on validation)``."""
    return f"{metric} (best epoch on validation)"


def at_chosen(metric: str) -> str:
    """Name a metric with thresholds chosen on known training labels: ``OF1 (chosen thresholds)``."""
    return f"{metric} (chosen thresholds)"


def at_validated(metric: str) -> str:
    """Name a metric with thresholds chosen on validation images: ``OF1 (validation thresholds)``."""
    return f"{metric} (validation thresholds)"


def at_oracle(metric: str) -> str:
    """Name a metric with thresholds chosen on the evaluated labels: ``OF1 (oracle thresholds)``."""
    return f"{metric} (oracle thresholds)"


def _at_chosen(name: str) -> Metric:
    return Metric(at_chosen(name), "%", lambda evidence: 100 * evidence.chosen.get(name, math.nan))


def _at_validated(name: str) -> Metric:
    return Metric(at_validated(name), "%", lambda evidence: 100 * evidence.validated.get(name, math.nan))


def _at_oracle(name: str) -> Metric:
    return Metric(at_oracle(name), "%", lambda evidence: 100 * evidence.oracle.get(name, math.nan))


def _validated(evidence: Evidence) -> float:
    epoch, course_E = evidence.validated_epoch, evidence.course_E
    return 100 * float(course_E[epoch]) if epoch is not None and epoch < len(course_E) else math.nan


def _share(name: str) -> Metric:
    return Metric(name, "%", lambda evidence: 100 * evidence.record.metrics[name])


def _share_of_best_epoch(name: str) -> Metric:
    return Metric(best_epoch(name), "%", lambda evidence: 100 * evidence.record.content["best_metrics"][name])


def _cost(key: str) -> Metric:
    name, unit, divisor = COST_UNITS[key]
    return Metric(name, unit, lambda evidence: evidence.record.content["cost"][key] / divisor)


def by_weights(weights: str) -> str:
    """Name the mAP of one kind of weights, where a recipe averages them: ``mAP (raw weights)``."""
    return f"mAP ({weights} weights)"


def _by_weights(weights: str) -> Metric:
    def value(evidence: Evidence) -> float:
        record = evidence.record
        if record.cell.recipe.ema is None:
            return math.nan
        is_own = record.cell.recipe.scored == weights
        return 100 * float(record.metrics["mAP"] if is_own else record.content[OTHER_WEIGHTS]["metrics"]["mAP"])

    return Metric(by_weights(weights), "%", value)


OF_WEIGHTS = {by_weights(weights): _by_weights(weights) for weights in (RAW, AVERAGED)}
"""These are shown where a row of the table has averaged weights."""

METRICS = {
    **{name: _share(name) for name in metrics.SHARES},
    **{best_epoch(name): _share_of_best_epoch(name) for name in metrics.REPORTED},
    best_on_validation("mAP"): Metric(best_on_validation("mAP"), "%", _validated),
    **{at_chosen(name): _at_chosen(name) for name in metrics.THRESHOLDED},
    **{at_validated(name): _at_validated(name) for name in metrics.THRESHOLDED},
    **{at_oracle(name): _at_oracle(name) for name in thresholds.ORACLE},
    RECOVERY: Metric(RECOVERY, "%", lambda evidence: 100 * evidence.recovery),
    FLUCTUATION: Metric("loss fluctuation", "", lambda evidence: evidence.loss_fluctuation),
    **{COST_UNITS[key][0]: _cost(key) for key in COST_UNITS},
}
"""These are the metrics by key, in the order of the tidy table; categories come on top.

The key is the name but for `FLUCTUATION`.
"""
