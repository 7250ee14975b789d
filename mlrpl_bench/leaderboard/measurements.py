"""Turns evidence into one tidy table: a row for each table row, known ratio and metric, with how sure it is.

The unit of shares is percent. An average over ratios is taken seed by seed, over the seeds that have every ratio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation import intervals, metrics
from mlrpl_bench.evaluation.intervals import Measured
from mlrpl_bench.leaderboard import numbers, pairing
from mlrpl_bench.leaderboard.evidence import EvidenceGrid, Seeds
from mlrpl_bench.utils.tables import BEST, NOT_COMPARED, TIED, Entry

LEVEL = 0.95

NO_INFLUENCES = "no interval, because the labels of the test images are not here"

COLUMNS = (
    *("method", "known_ratio", "metric", "unit", "mean", "std", "n"),
    *("low", "high", "mark", "p_best", "status", "caution"),
)


def average_name(ratios: Sequence[float]) -> str:
    """Return ``avg`` over the papers' nine ratios; over any other set it says over how many, ``avg of 3``.

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
    missing: Mapping[tuple[str, float], str] | None = None,
) -> pd.DataFrame:
    """Make the measurements of a table.

    The best row of each mAP column, and of the averages of OF1 and CF1, is marked, and with it those that a paired
    comparison on common images and seeds does not tell from it, after Holm's correction over all these comparisons.

    Args:
        cells: the evidence.
        labels: the rows.
        ratios: the columns, besides their average.
        categories: names for the metrics `CATEGORY` + name; none of these without.
        unmarked: rows that take no part in the marking, such as the upper bound.
        missing: why cells are missing, by label and ratio.

    Returns:
        A frame with `COLUMNS`: ``known_ratio`` is text (0.1, or `average_name`); ``std`` is over seeds, NaN for one;
        ``low`` and ``high`` are the ends of the 95 % interval where the metric has one; ``p_best`` is Holm's adjusted
        p-value of the difference to the best; ``mark`` is ``best``, ``tied``, ``not compared`` or
        empty; ``status`` is ``measured`` or
        says what is missing.
    """
    missing, columns = missing or {}, _columns(cells, labels, ratios)
    recipes = [evidence.record.cell.recipe for by_seeds in cells.values() for evidence in by_seeds.values()]
    averaging = any(recipe.ema is not None for recipe in recipes)
    shown = [*numbers.METRICS.values(), *(numbers.OF_WEIGHTS.values() if averaging else ())]
    shown += [*(numbers.category(place, name) for place, name in enumerate(categories))]
    rows = []
    for (label, known_ratio), by_seed in columns.items():
        place = f"{ratios[0]:g}" if len(ratios) == 1 else known_ratio
        status = _status(label, place, bool(by_seed), missing)
        for metric in shown:
            moments = _moments(pairing.values(by_seed, metric))
            rows.append([label, known_ratio, metric.name, metric.unit, *moments, status])
    names = ("method", "known_ratio", "metric", "unit", "mean", "std", "n", "status")
    frame = pd.DataFrame(rows, columns=names)
    sureness = _sureness(columns, [label for label in labels if label not in unmarked], average_name(ratios))
    merged = frame.merge(sureness, how="left", on=["method", "known_ratio", "metric"])
    for column in ("mark", "caution"):
        merged[column] = merged[column].astype(object).where(merged[column].notna(), "")
    return merged[list(COLUMNS)]


Columns = Mapping[tuple[str, str], pairing.BySeeds]
"""These are the cells of each row and column of the table."""


def _columns(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float]) -> Columns:
    columns: dict[tuple[str, str], pairing.BySeeds] = {}
    ratios = sorted(ratios)
    for label in labels:
        seeds = {ratio: set(cells.get((label, ratio), {})) for ratio in ratios}
        for ratio in ratios:
            columns[label, f"{ratio:g}"] = pairing.by_seeds(cells, label, [ratio], sorted(seeds[ratio]))
        complete = set.intersection(*seeds.values()) if seeds else set[Seeds]()
        columns[label, average_name(ratios)] = pairing.by_seeds(cells, label, ratios, sorted(complete))
    return columns


def _sureness(columns: Columns, compared: Sequence[str], average: str) -> pd.DataFrame:
    """Return the intervals of all rows, and the marks of those that are compared."""
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    p_values: dict[tuple[str, str, str], float] = {}
    for known_ratio in dict.fromkeys(column for _, column in columns):
        for metric in metrics.REPORTED:
            of_column = {label: by_seed for (label, column), by_seed in columns.items() if column == known_ratio}
            by_label = {
                label: pairing.measured(by_seed, metric)
                for label, by_seed in of_column.items()
                if by_seed and _has_influences(by_seed)
            }
            unsure = [label for label, by_seed in of_column.items() if by_seed and label not in by_label]
            rows |= {(label, known_ratio, metric): {"caution": NO_INFLUENCES} for label in unsure}
            found_intervals = intervals.intervals(list(by_label.values()), LEVEL)
            for label, found in zip(by_label, found_intervals, strict=True):
                low, high = max(found.low, 0.0), min(found.high, 100.0)  # no share lies beyond
                rows[label, known_ratio, metric] = {"low": low, "high": high, "caution": found.caution}
            if metric == "mAP" or known_ratio == average:
                by_compared_label = {label: by_label[label] for label in compared if label in by_label}
                best, against = _against_best(
                    by_compared_label, {label: list(columns[label, known_ratio]) for label in by_compared_label}
                )
                p_values |= {(label, known_ratio, metric): p for label, p in against.items()}
                for label in [*by_compared_label, *unsure] if best is not None else ():
                    mark = BEST if label == best else NOT_COMPARED  # until a p-value says more
                    rows[label, known_ratio, metric]["mark"] = mark
    for place, adjusted in intervals.holm_by_name(p_values).items():
        rows[place] |= {"p_best": adjusted, "mark": TIED if adjusted > 1 - LEVEL else ""}
    index = ("method", "known_ratio", "metric")
    found_rows = [dict(zip(index, place, strict=True)) | facts for place, facts in rows.items()]
    return pd.DataFrame(found_rows, columns=[*index, "low", "high", "caution", "mark", "p_best"])


def _has_influences(by_seed: pairing.BySeeds) -> bool:
    return all(cell.influences for cells in by_seed.values() for cell in cells)


def _against_best(
    rows: Mapping[str, Measured], seeds: Mapping[str, Sequence[Seeds]]
) -> tuple[str | None, dict[str, float]]:
    """Return the best row, and for each other one the p-value of no difference on their common seeds.

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
    spread_of_each = [spreads.get(len(a.estimates_S)) for a, _ in pairs.values()]
    found = intervals.all_paired(list(pairs.values()), LEVEL, spreads=spread_of_each)
    return best, {label: difference.p_value for label, difference in zip(pairs, found, strict=True)}


def _spreads(pairs: Sequence[tuple[Measured, Measured]]) -> dict[int, intervals.Spread | None]:
    """Return what the comparisons of a column teach about the seeds' variance, by number of seeds."""
    differences = [np.asarray(a.estimates_S) - np.asarray(b.estimates_S) for a, b in pairs]
    by_size: dict[int, list[float]] = {}
    for difference_S in differences:
        if len(difference_S) > 1:
            by_size.setdefault(len(difference_S), []).append(float(difference_S.var(ddof=1)))
    return {size: intervals.common_spread(variances, size - 1) for size, variances in by_size.items()}


def _only(measured: Measured, seeds: Sequence[Seeds], wanted: Sequence[Seeds]) -> Measured:
    rows = [list(seeds).index(pair) for pair in wanted]
    return Measured(np.asarray(measured.influences_SN)[rows], np.asarray(measured.estimates_S)[rows])


def _moments(values_S: NDArray[np.float64]) -> tuple[float, float, int]:
    """Return mean, sample standard deviation and number of seeds.

    Where a cell lacks the number (NaN) there is none of them: a mean over the others would be another number.
    """
    if not len(values_S) or np.isnan(values_S).any():
        return float("nan"), float("nan"), 0
    return float(values_S.mean()), float(values_S.std(ddof=1)) if len(values_S) > 1 else float("nan"), len(values_S)


def _status(label: str, known_ratio: str, there: bool, missing: Mapping[tuple[str, float], str]) -> str:
    reasons = [reason for (row, ratio), reason in missing.items() if row == label and f"{ratio:g}" == known_ratio]
    if there:
        return "; ".join(["measured", *reasons])
    if known_ratio.startswith("avg"):
        return "incomplete: no seed has every ratio"
    return "; ".join(reasons) or "not run"


NO_NUMBER = "-"


class Lookup:
    """A lookup finds measurements by label, known ratio and metric, and words them; nothing else reads the frame."""

    def __init__(self, measurements: pd.DataFrame) -> None:
        self._rows = {(row.method, row.known_ratio, row.metric): row for row in measurements.itertuples(index=False)}
        nothing = dict.fromkeys(COLUMNS, math.nan) | {"n": 0, "mark": "", "status": "not run", "caution": ""}
        self._nothing = next(pd.DataFrame([nothing]).itertuples(index=False))

    def row(self, label: str, known_ratio: str, metric: str) -> Any:
        """Find a measurement, with attributes named like the columns; one that is not there has NaN."""
        return self._rows.get((label, known_ratio, metric), self._nothing)

    @property
    def labels(self) -> list[str]:
        """Return the labels of the rows, in the order of the measurements."""
        return list(dict.fromkeys(label for label, _, _ in self._rows))

    def means(self, metric: str, known_ratio: str) -> dict[str, float]:
        """Find the mean over seeds of each row that has one, by label, in the order of the measurements."""
        found = {label: float(self.row(label, known_ratio, metric).mean) for label in self.labels}
        return {label: mean for label, mean in found.items() if not math.isnan(mean)}

    def entry(self, label: str, known_ratio: str, metric: str, seeds: int = 0, decimals: int = 1) -> Entry:
        """Word a mean: ``60.9 ± 0.5`` over several seeds; for a missing one, why it is missing, in a word or two.

        Args:
            label: of the row.
            known_ratio: of the column, as in the measurements.
            metric: a name of a metric.
            seeds: how many there should be; where there are fewer, the entry says how many there are.
            decimals: of the number.
        """
        row = self.row(label, known_ratio, metric)
        if math.isnan(row.mean):
            return Entry(_short_reason(row.status), place=(label, known_ratio))
        text = f"{row.mean:.{decimals}f}" + ("" if math.isnan(row.std) else f" ± {row.std:.{decimals}f}")
        text += f" ({row.n} of {seeds} seeds)" if 0 < row.n < seeds else ""
        return Entry(text, row.mark, (label, known_ratio), row.mean)

    def interval(self, label: str, known_ratio: str, metric: str) -> Entry:
        """Word an interval: ``58.1 – 63.0``, or a dash where there is none."""
        row = self.row(label, known_ratio, metric)
        text = NO_NUMBER if math.isnan(row.low) else f"{row.low:.1f} – {row.high:.1f}"
        return Entry(text, place=(label, known_ratio), value=row.low)


def _short_reason(status: str) -> str:
    """Return why an entry is missing, in a word or two; the notes have the whole reason."""
    if (place := re.match(r"(stopped|interrupted) at epoch \d+ of \d+", status)) is not None:
        return place.group()
    for word in ("failed", "still running", "interrupted", "record damaged", "not run", "incomplete"):
        if status.startswith(word):
            return "running" if word == "still running" else word
    return NO_NUMBER
