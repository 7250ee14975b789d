"""Sets methods beside a second seed: is a method's gain more than what the mean of two trainings' scores gives?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.evaluation import ensembles, intervals, metrics
from mlrpl_bench.evaluation.influences import influences
from mlrpl_bench.evaluation.intervals import Difference, Interval, Measured
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.comparison import NO_DIFFERENCE
from mlrpl_bench.leaderboard.evidence import EvidenceGrid, read_scores
from mlrpl_bench.leaderboard.measurements import LEVEL
from mlrpl_bench.leaderboard.tables.analyses.analysis import Analysis, Common, common, ratio_name
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.tables import Entry, Table, from_text

Rows = Mapping[str, Measured]
"""This is in percent, by name: single rows, ensembles of two seeds (``ssgrl x 2``), of all seeds, of two methods."""

COLUMNS = (
    *("kind", "name", "less", "known_ratio", "mAP", "difference", "low", "high", "p_value", "p_adjusted"),
    *("seeds", "caution"),
)


@dataclass(frozen=True)
class _Column:
    """This column is one known ratio, or the average over all."""

    title: str
    rows: Rows
    found: Mapping[str, Interval]
    differences: Mapping[tuple[str, str], Difference]
    adjusted: Mapping[tuple[str, str], float]


def analyse(
    cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], test: Split, report: Report = silent
) -> Analysis:
    """Measure ensembles of scores, and compare them with single trainings on the same images and seeds.

    Every pair of a row's seeds is an ensemble, see `ensembles.over_pairs`; two rows make two of every pair of seeds,
    whose mean counts: with the same seed both would have the same mask, initial weights and order of images, which two
    seeds of one row have not. The measure is mAP of the pooled scores, see `ensembles.pooled_logits`.

    Args:
        cells: the evidence of the rows; their scores are read again.
        labels: the rows; the first is the one whose second seed the others are set beside.
        ratios: known ratios.
        test: the images that were evaluated, with labels.
        report: told how many rows are done.

    Returns:
        A frame with `COLUMNS`; ``kind`` is ``row`` (mAP of a row or an ensemble, with its interval) or ``difference``
        (of ``name`` less ``less``, in percent points). P-values are adjusted (Holm) within a known ratio. ``seeds`` is
        the number of repetitions that an interval rests on.

    Raises:
        UserError: there are fewer than two common seeds, or scores are damaged.
    """
    ratios = tuple(sorted(ratios))
    shared = common(cells, labels, ratios, needed=labels)
    if len(shared.seeds) < 2:
        raise UserError(
            f"{', '.join(labels)} share {len(shared.seeds)} seed; an ensemble needs records of two: train with "
            "--seeds 2 or more"
        )
    by_ratio: dict[float, Rows] = {}
    for done, ratio in enumerate(ratios):
        report("averaging scores", done, len(ratios))
        by_ratio[ratio] = _rows(cells, shared, ratio, test)
    report("averaging scores", len(ratios), len(ratios))
    columns = [_column(f"{ratio:g}", rows, shared.labels) for ratio, rows in by_ratio.items()]
    if len(ratios) > 1:
        columns.append(_column(ratio_name(ratios), _averaged(list(by_ratio.values())), shared.labels))
    tables = [_table(columns, ratios, shared), _comparisons(columns[-1], shared)]
    return Analysis("ensembles", pd.DataFrame(_tidy(columns), columns=list(COLUMNS)), tables)


def _rows(cells: EvidenceGrid, shared: Common, ratio: float, test: Split) -> Rows:
    """Return single rows and ensembles at a known ratio; the scores of a ratio are in memory at a time."""
    scores = {
        label: [read_scores(cells[label, ratio][seeds].record, "scores.npz", test) for seeds in shared.seeds]
        for label in shared.labels
    }
    count, (first, *others) = len(shared.seeds), shared.labels
    rows: dict[str, Measured] = {}
    for label in shared.labels:
        rows[label] = pairing.measured(pairing.by_seeds(cells, label, [ratio], shared.seeds), "mAP")
        pairs = {
            (a, b): _measured([[scores[label][a], scores[label][b]]], test) for a, b in combinations(range(count), 2)
        }
        rows[_times(label, 2)] = ensembles.over_pairs(pairs, count)
        if count > 2:
            rows[_times(label, count)] = _measured([scores[label]], test)
    for label in others:
        of_both = {
            (a, b): ensembles.as_one(
                _measured([[scores[first][a], scores[label][b]], [scores[first][b], scores[label][a]]], test)
            )
            for a, b in combinations(range(count), 2)
        }
        rows[_both(first, label)] = ensembles.over_pairs(of_both, count)
    return rows


def _measured(members: Sequence[Sequence[NDArray]], test: Split) -> Measured:
    """Return mAP in percent of each of several ensembles, and the images' influences."""
    pooled = [ensembles.pooled_logits(np.array(each)) for each in members]
    precisions = [metrics.mean_average_precision(metrics.average_precisions(each, test.labels_NC)) for each in pooled]
    drawn_SN = [influences(each, test.labels_NC)["mAP"] for each in pooled]
    return Measured(100 * np.array(drawn_SN), 100 * np.array(precisions))


def _averaged(rows: Sequence[Rows]) -> Rows:
    return {
        name: Measured(
            np.mean([of_ratio[name].influences_SN for of_ratio in rows], axis=0),
            np.mean([of_ratio[name].estimates_S for of_ratio in rows], axis=0),
        )
        for name in rows[0]
    }


def _column(title: str, rows: Rows, labels: Sequence[str]) -> _Column:
    found = dict(zip(rows, intervals.intervals(list(rows.values()), LEVEL), strict=True))
    asked = _questions(labels)
    pairs = [_matched(rows[a], rows[b]) for a, b in asked]
    differences = dict(zip(asked, intervals.all_paired(pairs, LEVEL), strict=True))
    adjusted = intervals.holm_by_name({pair: found.p_value for pair, found in differences.items()})
    return _Column(title, rows, found, differences, adjusted)


def _questions(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return which row is set against which; the first of the labels is the one whose second seed is the yardstick."""
    first, *others = labels
    two = _times(first, 2)
    asked = [(two, first)]
    for label in others:
        asked += [(label, first), (label, two), (_both(first, label), two), (_times(label, 2), two)]
    return asked


def _matched(a: Measured, b: Measured) -> tuple[Measured, Measured]:
    """Return both rows seed by seed; where one has no repetitions, return their means over seeds."""
    if len(a.estimates_S) == len(b.estimates_S):
        return a, b
    return ensembles.as_one(a), ensembles.as_one(b)


def _times(label: str, count: int) -> str:
    return f"{label} x {count}"


def _both(first: str, label: str) -> str:
    return f"{first} + {label}"


def _tidy(columns: Sequence[_Column]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for column in columns:
        for name, found in column.found.items():
            ends = {"low": max(found.low, 0.0), "high": min(found.high, 100.0)}
            facts = {"mAP": found.mean, **ends, "seeds": found.seeds, "caution": found.caution}
            rows.append({"kind": "row", "name": name, "less": "", "known_ratio": column.title, **facts})
        for (name, less), difference in column.differences.items():
            ends = {"difference": difference.mean, "low": difference.low, "high": difference.high}
            facts = {"p_value": difference.p_value, "p_adjusted": column.adjusted[name, less]}
            about = {"seeds": difference.seeds, "caution": difference.caution}
            place = {"kind": "difference", "name": name, "less": less, "known_ratio": column.title}
            rows.append({**place, **ends, **facts, **about})
    return rows


def _table(columns: Sequence[_Column], ratios: Sequence[float], shared: Common) -> Table:
    last = columns[-1]
    titles = [f"{100 * ratio:g} %" for ratio in ratios] + [f"mAP ({column.title})" for column in columns[len(ratios) :]]
    rows = []
    for name, found in last.found.items():
        means = [column.found[name].mean for column in columns]
        interval = Entry(f"{max(found.low, 0):.1f} – {min(found.high, 100):.1f}")
        rows.append((name, [*(Entry(f"{mean:.1f}", value=mean) for mean in means), interval]))
    count = len(shared.seeds)
    notes = [
        f"mAP in percent by share of known labels; single rows: mean over {count} seeds; x 2: mean over the ensembles "
        "of all pairs of seeds; a + b: one of each with different seeds, since with the same one they share mask, "
        "initial weights and order of images",
        "an ensemble's score is the mean probability of its members, not the mean logit, as losses put logits on "
        "scales of their own; it costs the training and the testing of all its members",
    ]
    if count > 2:
        notes.append(f"x {count}: one ensemble of all seeds, so its interval is over test images only")
    if len({mask_seed for _, mask_seed in shared.seeds}) > 1:
        notes.append(
            "the seeds of a row have masks of their own, so an ensemble of two seeds has seen more labels than one "
            "training has; cells with one mask (train with --mask-seed 0, then give it here) leave this out"
        )
    notes += [*shared.cautions(), *dict.fromkeys(filter(None, [last.found[shared.labels[0]].caution])), *shared.notes]
    return Table("ensembles", "Ensembles", (*titles, "95 % interval"), rows, tuple(notes), corner="row")


def _comparisons(column: _Column, shared: Common) -> Table:
    first = shared.labels[0]
    rows = []
    for (name, less), found in column.differences.items():
        adjusted = column.adjusted[name, less]
        text = pairing.difference_text(found.mean, found.low, found.high)
        rows.append([f"{name} less {less}", text, pairing.p_text(adjusted), _verdict(name, less, found, adjusted)])
    one = next((found.caution for found in column.differences.values() if found.seeds == 1), "")
    notes = [
        f"mAP in percent points, {_place(column.title)}, same test images and seeds; p corrected over these lines "
        "(Holm)",
        f"'ROW less {_times(first, 2)}': is a row more than a second seed of {first}; '{first} + ROW less "
        f"{_times(first, 2)}': does it help more as the second member than a second seed does",
        *filter(None, [one]),
    ]
    if len(shared.seeds) == 2:
        notes.append("two seeds have one pair, so nothing is known of other pairs; from three seeds on there is")
    header = ["difference", f"points [{100 * LEVEL:g} %]", "p (Holm)", "verdict"]
    title = f"More than a second seed of {first}?"
    return from_text("second-seed", title, header, rows, notes, wraps=True)


def _place(title: str) -> str:
    return title if title.startswith("avg") else f"at {100 * float(title):g} % known labels"


def _verdict(name: str, less: str, found: Difference, adjusted: float) -> str:
    if math.isnan(adjusted) or adjusted > 1 - LEVEL or not found.mean:
        return NO_DIFFERENCE
    better = name if found.mean > 0 else less
    return f"{better} is better" + (" (these trained models)" if found.seeds == 1 else "")
