"""Finds the seeds that rows of a table share, and the rows' numbers there: what a paired comparison takes.

Numbers are in the units of `numbers.METRICS`: shares in percent, so that differences are in percent points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.evaluation.intervals import Difference, Measured
from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid, Seeds
from mlrpl_bench.leaderboard.numbers import FLUCTUATION, METRICS, Metric

BySeeds = Mapping[Seeds, Sequence[Evidence]]
"""These are the cells of a row by seeds: at one known ratio one cell, or the cells of several ratios that are
averaged.
"""

ONE_MASK = "all seeds share one mask: the interval does not cover other masks"


def seeds_of(cells: EvidenceGrid, label: str, ratio: float, metric: str) -> set[Seeds]:
    """Find the seeds at which a row has this number at a ratio."""
    value, by_seeds = METRICS[metric].value, cells.get((label, ratio), {})
    return {seeds for seeds, evidence in by_seeds.items() if math.isfinite(value(evidence))}


def common_seeds(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], metric: str) -> list[Seeds]:
    """Find the seeds at which every row has the number at every ratio."""
    found = [seeds_of(cells, label, ratio, metric) for label in labels for ratio in ratios]
    return sorted(set.intersection(*found)) if found else []


def unpaired_seeds(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], metric: str) -> list[str]:
    """Name the seeds that are not common, each with what it lacks: ``seed 1: kggr has none at 10 %``."""
    found = {(label, ratio): seeds_of(cells, label, ratio, metric) for label in labels for ratio in ratios}
    lines = []
    for seeds in sorted(set().union(*found.values()) - set(common_seeds(cells, labels, ratios, metric))):
        lacks = [
            f"{label} has none at {percents(absent)}"
            for label in labels
            if (absent := [ratio for ratio in ratios if seeds not in found[label, ratio]])
        ]
        lines.append(f"{seeds_name(seeds)}: {', '.join(lacks)}")
    return lines


def why_none_common(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], metric: str) -> str:
    """Say what is missing where `common_seeds` is empty."""
    what = "no records" if metric != FLUCTUATION else "no records with a supervised loss term"
    for label in labels:
        absent = [ratio for ratio in ratios if not seeds_of(cells, label, ratio, metric)]
        if absent:
            return f"{label} has {what} at {percents(absent)}"
    return f"no seed has {' and '.join(labels)} at {percents(ratios)}"


def by_seeds(cells: EvidenceGrid, label: str, ratios: Sequence[float], seeds: Sequence[Seeds]) -> BySeeds:
    """Take the cells of a row at these ratios, by seeds; every one of them must be there."""
    return {each: [cells[label, ratio][each] for ratio in ratios] for each in seeds}


def values(row: BySeeds, metric: Metric) -> NDArray[np.float64]:
    """Take a row's number by seeds, averaged over the ratios; float64 [S]."""
    return np.array([np.mean([metric.value(cell) for cell in cells]) for cells in row.values()])


def measured(row: BySeeds, metric: str) -> Measured:
    """Take a row's influences [S, N] and estimates [S], averaged over the ratios, both in percent.

    Args:
        metric: of `metrics.REPORTED`, which are the ones with influences.
    """
    influences_SN = [np.mean([cell.influences[metric] for cell in cells], axis=0) for cells in row.values()]
    return Measured(100 * np.array(influences_SN, dtype=np.float64), values(row, METRICS[metric]))


def less(a: Measured, b: Measured) -> Measured:
    """Take the difference of two rows, as if it were a row."""
    return Measured(
        np.asarray(a.influences_SN) - np.asarray(b.influences_SN), np.asarray(a.estimates_S) - np.asarray(b.estimates_S)
    )


def paired_over_seeds(differences_S: NDArray[np.float64], level: float = 0.95) -> Difference:
    """Compute Student's interval and test of a mean difference over seeds, for a number that no test image enters.

    With one seed there is neither: NaN.
    """
    from scipy.stats import t

    seeds, mean = len(differences_S), float(differences_S.mean())
    if seeds == 1:
        return Difference(mean, math.nan, math.nan, level, 1, 0.0, math.nan, "one seed", p_value=math.nan)
    error = float(differences_S.std(ddof=1) / math.sqrt(seeds))
    half = float(t.isf((1 - level) / 2, seeds - 1)) * error
    p_value = float(2 * t.sf(abs(mean) / error, seeds - 1)) if error else float(mean == 0)
    return Difference(mean, mean - half, mean + half, level, seeds, 0.0, error, "", p_value=p_value)


def seeds_name(seeds: Seeds) -> str:
    """Name a pair of seeds: ``seed 1``, or ``seed 1 (mask 0)`` where the mask's is another."""
    seed, mask_seed = seeds
    return f"seed {seed}" if seed == mask_seed else f"seed {seed} (mask {mask_seed})"


def percents(ratios: Sequence[float]) -> str:
    """Word known ratios: ``10 %``, or ``10, 50 and 90 %``."""
    *first, last = (f"{100 * ratio:g}" for ratio in ratios)
    return f"{', '.join(first)} and {last} %" if first else f"{last} %"


def p_text(p_value: float) -> str:
    """Word a p-value: ``0.03``, ``<0.001``, ``-`` where there is none."""
    if math.isnan(p_value):
        return "-"
    if p_value < 0.001:
        return "<0.001"
    return f"{p_value:.2f}" if p_value >= 0.0995 else f"{p_value:.3f}"


def difference_text(difference: float, low: float, high: float, decimals: int = 2) -> str:
    """Word a difference: ``+2.30 [+1.12, +3.41]``, without brackets where there is no interval, else ``-``."""
    if math.isnan(difference):
        return "-"
    ends = "" if math.isnan(low) else f" [{low:+.{decimals}f}, {high:+.{decimals}f}]"
    return f"{difference:+.{decimals}f}{ends}"
