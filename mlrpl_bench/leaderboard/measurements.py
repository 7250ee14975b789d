"""Evidence in, one tidy table out: a row for each table row, known ratio and metric, with how sure it is.

The unit of shares is percent. An average over ratios is taken seed by seed, over the seeds that have every ratio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation import intervals as statistics
from mlrpl_bench.evaluation.intervals import Measured
from mlrpl_bench.leaderboard.evidence import INFLUENCED, Evidence, EvidenceGrid, Seeds
from mlrpl_bench.utils.tables import BEST, NOT_COMPARED, TIED, Entry

LEVEL = 0.95


CATEGORY = "AP: "
"""Begins the name of the metric that is one category's average precision."""


@dataclass(frozen=True)
class Metric:
    """A number of a cell.

    Attributes:
        name, unit: as in the table.
        of: takes it from a cell's evidence, in that unit.
    """

    name: str
    unit: str
    of: Callable[[Evidence], float]


def _metric(name: str) -> Metric:
    return Metric(name, "%", lambda evidence: 100 * evidence.record.metrics[name])


def _best_epoch(name: str) -> Metric:
    return Metric(f"{name} (best epoch)", "%", lambda evidence: 100 * evidence.record.content["best_metrics"][name])


def _cost(key: str, unit: str, divisor: float = 1.0) -> Metric:
    return Metric(key, unit, lambda evidence: evidence.record.content["cost"][key] / divisor)


THRESHOLDED = ("OP", "OR", "OF1", "CP", "CR", "CF1")


RECOVERY, FLUCTUATION = "recovery", "loss fluctuation"


COSTS = ("seconds", "images_per_second", "peak_memory", "cells_in_group")

METRICS = [
    *map(_metric, ("mAP", *THRESHOLDED, *(f"{name}_top3" for name in THRESHOLDED), "average_precision")),
    *map(_best_epoch, INFLUENCED),
    Metric(RECOVERY, "%", lambda evidence: 100 * evidence.recovery),
    Metric(FLUCTUATION, "", lambda evidence: evidence.loss_fluctuation),
    _cost("seconds", "s"),
    _cost("images_per_second", "1/s"),
    Metric("peak_memory", "GB", lambda evidence: evidence.record.content["cost"]["peak_memory_bytes"] / 1e9),
    _cost("cells_in_group", ""),
]

COLUMNS = (
    *("method", "known_ratio", "metric", "unit", "mean", "std", "n"),
    *("low", "high", "mark", "p_best", "status", "caution"),
)


def average_name(ratios: Sequence[float]) -> str:
    """``avg`` over the papers' nine ratios; over any other set it says over how many, ``avg of 3``.

    >>> average_name((0.1, 0.5, 0.9)), average_name((0.5,))
    ('avg of 3', 'at 50 %')
    """
    if len(ratios) == 1:
        return f"at {100 * ratios[0]:g} %"
    return "avg" if tuple(sorted(ratios)) == NINE_RATIOS else f"avg of {len(ratios)}"


def measure(
    cells: EvidenceGrid,
    labels: Sequence[str],
    ratios: Sequence[float],
    categories: Sequence[str] = (),
    unmarked: Collection[str] = (),
    holes: Mapping[tuple[str, float], str] | None = None,
) -> pd.DataFrame:
    """The measurements of a table.

    The best row of each mAP column, and of the averages of OF1 and CF1, is marked, and with it those that a paired
    comparison on common images and seeds does not tell from it, after Holm's correction over all these comparisons.

    Args:
        labels: the rows. ratios: the columns, besides their average.
        categories: names for the metrics `CATEGORY` + name; none of these without.
        unmarked: rows that take no part in the marking, such as the upper line.
        holes: why cells are missing, by label and ratio.

    Returns:
        A frame with `COLUMNS`: ``known_ratio`` is text (0.1, or `average_name`); ``std`` is over seeds, NaN for one;
        ``low`` and ``high`` are the ends of the 95 % interval where the metric has one; ``p_best`` is Holm's adjusted
        p-value of the difference to the best; ``mark`` is ``best``, ``tied``, ``not compared`` or
        empty; ``status`` is ``measured`` or
        says what is missing.
    """
    holes, columns = holes or {}, _columns(cells, labels, ratios)
    metrics = [*METRICS, *(_category(number, name) for number, name in enumerate(categories))]
    rows = []
    for (label, known_ratio), by_seed in columns.items():
        place = f"{ratios[0]:g}" if len(ratios) == 1 else known_ratio
        status = _status(label, place, bool(by_seed), holes)
        for metric in metrics:
            values_S = np.array([np.mean([metric.of(e) for e in of_seed]) for of_seed in by_seed.values()])
            rows.append([label, known_ratio, metric.name, metric.unit, *_moments(values_S), status])
    names = ("method", "known_ratio", "metric", "unit", "mean", "std", "n", "status")
    frame = pd.DataFrame(rows, columns=names)
    sureness = _sureness(columns, [label for label in labels if label not in unmarked], average_name(ratios))
    merged = frame.merge(sureness, how="left", on=["method", "known_ratio", "metric"])
    for column in ("mark", "caution"):
        merged[column] = merged[column].astype(object).where(merged[column].notna(), "")
    return merged[list(COLUMNS)]


Columns = Mapping[tuple[str, str], Mapping[Seeds, Sequence[Evidence]]]
"""By row and column: for each pair of seeds the cells that are averaged."""


def _columns(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float]) -> Columns:
    columns: dict[tuple[str, str], dict[Seeds, Sequence[Evidence]]] = {}
    for label in labels:
        of_label = {ratio: cells.get((label, ratio), {}) for ratio in sorted(ratios)}
        for ratio, by_seed in of_label.items():
            columns[label, f"{ratio:g}"] = {seeds: [by_seed[seeds]] for seeds in sorted(by_seed)}
        complete = set.intersection(*(set(by_seed) for by_seed in of_label.values())) if of_label else set()
        columns[label, average_name(ratios)] = {
            seeds: [by_seed[seeds] for by_seed in of_label.values()] for seeds in sorted(complete)
        }
    return columns


def measured(by_seed: Mapping[Seeds, Sequence[Evidence]], metric: str) -> Measured:
    """Influences and estimates, in percent, of one row and column: what `statistics` takes."""
    influences_SN = [np.mean([e.influences[metric] for e in of_seed], axis=0) for of_seed in by_seed.values()]
    estimates_S = [np.mean([e.record.metrics[metric] for e in of_seed]) for of_seed in by_seed.values()]
    return Measured(100 * np.array(influences_SN), 100 * np.array(estimates_S))


def _sureness(columns: Columns, compared: Sequence[str], average: str) -> pd.DataFrame:
    """Intervals of all, and of the rows that are compared the marks."""
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    p_values: dict[tuple[str, str, str], float] = {}
    for known_ratio in dict.fromkeys(column for _, column in columns):
        for metric in INFLUENCED:
            of_column = {
                label: measured(by_seed, metric)
                for (label, column), by_seed in columns.items()
                if column == known_ratio and by_seed
            }
            intervals = statistics.intervals(list(of_column.values()), LEVEL)
            for label, found in zip(of_column, intervals, strict=True):
                low, high = max(found.low, 0.0), min(found.high, 100.0)  # no share lies beyond
                rows[label, known_ratio, metric] = {"low": low, "high": high, "caution": found.caution}
            if metric == "mAP" or known_ratio == average:
                of_compared = {label: of_column[label] for label in compared if label in of_column}
                best, against = _against_best(
                    of_compared, {label: list(columns[label, known_ratio]) for label in of_compared}
                )
                p_values |= {(label, known_ratio, metric): p for label, p in against.items()}
                for label in of_compared if best is not None else ():
                    mark = BEST if label == best else NOT_COMPARED  # until a p-value says more
                    rows[label, known_ratio, metric]["mark"] = mark
    for place, adjusted in zip(p_values, statistics.holm(list(p_values.values())), strict=True):
        rows[place] |= {"p_best": adjusted, "mark": TIED if adjusted > 1 - LEVEL else ""}
    index = ("method", "known_ratio", "metric")
    found_rows = [dict(zip(index, place, strict=True)) | facts for place, facts in rows.items()]
    return pd.DataFrame(found_rows, columns=[*index, "low", "high", "caution", "mark", "p_best"])


def _against_best(
    rows: Mapping[str, Measured], seeds: Mapping[str, Sequence[Seeds]]
) -> tuple[str | None, dict[str, float]]:
    """The best row, and for each other one the p-value of no difference on their common seeds.

    The best has the highest mean of the rows with the most seeds: one lucky seed beats nobody. A row that shares but
    one seed with a best that has more is not compared, since that would tell more apart than more seeds would.
    """
    if len(rows) < 2:
        return None, {}
    most = max(map(len, seeds.values()))
    complete = [label for label in rows if len(seeds[label]) == most]
    best = max(complete, key=lambda label: float(np.mean(rows[label].estimates_S)))
    pairs: dict[str, tuple[Measured, Measured]] = {}
    for label in rows:
        common = [pair for pair in seeds[label] if pair in seeds[best]]
        if label != best and len(common) >= min(2, most):
            pairs[label] = _only(rows[best], seeds[best], common), _only(rows[label], seeds[label], common)
    spreads = _spreads(list(pairs.values()))
    of_pairs = [spreads.get(len(a.estimates_S)) for a, _ in pairs.values()]
    found = statistics.all_paired(list(pairs.values()), LEVEL, spreads=of_pairs)
    return best, {label: difference.p_value for label, difference in zip(pairs, found, strict=True)}


def _spreads(pairs: Sequence[tuple[Measured, Measured]]) -> dict[int, statistics.Spread | None]:
    """What the comparisons of a column teach about the seeds' variance, by number of seeds."""
    differences = [np.asarray(a.estimates_S) - np.asarray(b.estimates_S) for a, b in pairs]
    of_size: dict[int, list[float]] = {}
    for difference_S in differences:
        if len(difference_S) > 1:
            of_size.setdefault(len(difference_S), []).append(float(difference_S.var(ddof=1)))
    return {size: statistics.common_spread(variances, size - 1) for size, variances in of_size.items()}


def _only(of: Measured, seeds: Sequence[Seeds], wanted: Sequence[Seeds]) -> Measured:
    rows = [list(seeds).index(pair) for pair in wanted]
    return Measured(np.asarray(of.influences_SN)[rows], np.asarray(of.estimates_S)[rows])


def _category(number: int, name: str) -> Metric:
    return Metric(f"{CATEGORY}{name}", "%", lambda evidence: 100 * evidence.record.metrics["AP_C"][number])


def _moments(values_S: NDArray[np.float64]) -> tuple[float, float, int]:
    """Mean, sample standard deviation and how many; a cell without the number (NaN) leaves a hole, not another mean."""
    if not len(values_S) or np.isnan(values_S).any():
        return float("nan"), float("nan"), 0
    return float(values_S.mean()), float(values_S.std(ddof=1)) if len(values_S) > 1 else float("nan"), len(values_S)


def _status(label: str, known_ratio: str, there: bool, holes: Mapping[tuple[str, float], str]) -> str:
    reasons = [reason for (of, ratio), reason in holes.items() if of == label and f"{ratio:g}" == known_ratio]
    if there:
        return "; ".join(["measured", *reasons])
    if known_ratio.startswith("avg"):
        return "incomplete: no seed has every ratio"
    return "; ".join(reasons) or "not run"


HOLE = "-"


class Lookup:
    """Finds measurements by row, known ratio and metric, and words them."""

    def __init__(self, measurements: pd.DataFrame) -> None:
        self._rows = {(row.method, row.known_ratio, row.metric): row for row in measurements.itertuples(index=False)}
        nothing = dict.fromkeys(COLUMNS, math.nan) | {"n": 0, "mark": "", "status": "not run", "caution": ""}
        self._nothing = next(pd.DataFrame([nothing]).itertuples(index=False))

    def row(self, label: str, known_ratio: str, metric: str) -> Any:
        """The measurement, with attributes named like the columns; of one that is not there, NaN."""
        return self._rows.get((label, known_ratio, metric), self._nothing)

    def entry(self, label: str, known_ratio: str, metric: str, seeds: int = 0, decimals: int = 1) -> Entry:
        """``60.9 ± 0.5`` over several seeds; a hole in a word; how many seeds, where there are fewer than `seeds`."""
        row = self.row(label, known_ratio, metric)
        if math.isnan(row.mean):
            return Entry(_hole(row.status), place=(label, known_ratio))
        text = f"{row.mean:.{decimals}f}" + ("" if math.isnan(row.std) else f" ± {row.std:.{decimals}f}")
        text += f" ({row.n} of {seeds} seeds)" if 0 < row.n < seeds else ""
        return Entry(text, row.mark, (label, known_ratio), row.mean)

    def interval(self, label: str, known_ratio: str, metric: str) -> Entry:
        """``58.1 – 63.0``."""
        row = self.row(label, known_ratio, metric)
        text = HOLE if math.isnan(row.low) else f"{row.low:.1f} – {row.high:.1f}"
        return Entry(text, place=(label, known_ratio), value=row.low)


def _hole(status: str) -> str:
    """A hole in a few words; the notes have the whole reason."""
    if (place := re.match(r"(stopped|interrupted) at epoch \d+ of \d+", status)) is not None:
        return place.group()
    for word in ("failed", "still running", "interrupted", "record damaged", "not run", "incomplete"):
        if status.startswith(word):
            return "running" if word == "still running" else word
    return HOLE
