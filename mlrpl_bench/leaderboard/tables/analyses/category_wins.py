"""Says who wins where: the best row of each category, and whether the others are told from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.influences import category_influences
from mlrpl_bench.evaluation.intervals import Difference, Measured
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.evidence import EvidenceGrid, read_scores
from mlrpl_bench.leaderboard.measurements import LEVEL, average_name
from mlrpl_bench.leaderboard.tables.analyses.analysis import Analysis, Common, common, ratio_name
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.tables import BEST, TIED, Entry, Table, counted

FEW_POSITIVES = 10
"""Intervals are too narrow (see `influences`), and none is sure, if fewer evaluated images have a category."""

COLUMNS = (
    *("category", "positives", "method", "known_ratio", "AP", "behind", "low", "high", "p_adjusted", "mark", "is_sure"),
    "seeds",
)


@dataclass(frozen=True)
class _Winner:
    """This is the best row of a category, beside the others from the next best on: best less other, and its adjusted
    p.
    """

    category: str
    positives: int
    best: str
    precisions: Mapping[str, float]
    behind: Mapping[str, Difference]
    adjusted: Mapping[str, float]

    @property
    def tied(self) -> list[str]:
        """Return the rows that are not told from the best."""
        return [label for label, p_value in self.adjusted.items() if p_value > 1 - LEVEL]

    @property
    def is_sure(self) -> bool:
        """Tell whether every other row is told from the best, on enough images that have the category."""
        return not self.tied and self.positives >= FEW_POSITIVES


def analyse(
    cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], test: Split, report: Report = silent
) -> Analysis:
    """Find the best row of each category by average precision, averaged over the known ratios.

    The best is compared with every other row on the same images and seeds. P-values are adjusted (Holm) over all these
    comparisons of all categories, and the seeds' variance of each is moderated by that of all, see
    `intervals.common_spread`. That the best was chosen for being the best is not corrected for.

    Args:
        cells: the evidence of the rows; their scores are read again.
        labels: the rows.
        ratios: known ratios.
        test: the images that were evaluated, with labels.
        report: told how many rows are read.

    Returns:
        A frame with `COLUMNS`, a row for each category and row of the table: ``AP`` in percent, ``behind`` the best in
        points with its interval, ``mark`` ``best`` or ``tied``, ``is_sure`` whether the category has a sure winner.

    Raises:
        UserError: fewer than two rows have a common seed at all ratios, or scores are damaged.
    """
    ratios = tuple(sorted(ratios))
    shared = common(cells, labels, ratios)
    if len(shared.labels) < 2:
        raise UserError(f"who wins where needs two rows or more, not {', '.join(shared.labels)} alone; train others")
    measured = {}
    for done, label in enumerate(shared.labels):
        report("reading scores by category", done, len(shared.labels))
        measured[label] = _by_category(cells, label, shared, ratios, test)
    report("reading scores by category", len(shared.labels), len(shared.labels))
    winners = _winners(measured, test)
    average = average_name(ratios)
    tables = [_wins(winners, shared), _where(winners, average, shared)]
    tidy = [row for winner in winners for row in _tidy(winner, ratio_name(ratios), len(shared.seeds))]
    return Analysis("categories", pd.DataFrame(tidy, columns=list(COLUMNS)), tables)


def _by_category(
    cells: EvidenceGrid, label: str, shared: Common, ratios: Sequence[float], test: Split
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return a row's influences, float32 [C, S, N], and average precisions, [C, S], both in percent, averaged over
    ratios.

    Influences are kept in half the bytes: of thirty rows of a large data set they are a gigabyte.
    """
    shape = len(test.categories), len(shared.seeds)
    drawn_CSN = np.zeros((*shape, len(test.labels_NC)), dtype=np.float32)
    precisions_CS = np.zeros(shape)
    for place, seeds in enumerate(shared.seeds):
        for ratio in ratios:
            record = cells[label, ratio][seeds].record
            found_NC = category_influences(read_scores(record, "scores.npz", test), test.labels_NC)
            drawn_CSN[:, place] += (100 / len(ratios) * found_NC.T).astype(np.float32)
            precisions_CS[:, place] += 100 / len(ratios) * np.asarray(record.metrics["AP_C"])
    return drawn_CSN, precisions_CS


def _winners(measured: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float64]]], test: Split) -> list[_Winner]:
    """Return the winner of each category that has positives, with p-values adjusted over all."""
    positives_C = (test.labels_NC == PRESENT).sum(axis=0)
    compared: dict[int, tuple[str, dict[str, float], dict[str, tuple[Measured, Measured]]]] = {}
    for place in np.flatnonzero(positives_C).tolist():
        rows = {label: Measured(drawn[place], found[place]) for label, (drawn, found) in measured.items()}
        means = {label: float(np.mean(row.estimates_S)) for label, row in rows.items()}
        best, *others = sorted(rows, key=lambda label: -means[label])
        compared[place] = best, means, {label: (rows[best], rows[label]) for label in others}
    every = [pair for _, _, pairs in compared.values() for pair in pairs.values()]
    spread = None
    if len(every[0][0].estimates_S) > 1:
        variances = [float((a.estimates_S - b.estimates_S).var(ddof=1)) for a, b in every]
        spread = intervals.common_spread(variances, len(every[0][0].estimates_S) - 1)
    behind = {
        place: dict(
            zip(pairs, intervals.all_paired(list(pairs.values()), LEVEL, spreads=[spread] * len(pairs)), strict=True)
        )
        for place, (_, _, pairs) in compared.items()
    }
    adjusted = intervals.holm_by_name(
        {(place, label): found.p_value for place, by_label in behind.items() for label, found in by_label.items()}
    )
    return [
        _Winner(
            category=test.categories[place],
            positives=int(positives_C[place]),
            best=best,
            precisions=means,
            behind=behind[place],
            adjusted={label: adjusted[place, label] for label in behind[place]},
        )
        for place, (best, means, _) in compared.items()
    ]


def _tidy(winner: _Winner, known_ratio: str, seeds: int) -> list[dict[str, object]]:
    about = {"category": winner.category, "positives": winner.positives, "known_ratio": known_ratio, "seeds": seeds}
    rows: list[dict[str, object]] = []
    for label in (winner.best, *winner.behind):
        row: dict[str, object] = {**about, "method": label, "AP": winner.precisions[label], "is_sure": winner.is_sure}
        if label == winner.best:
            row |= {"behind": 0.0, "mark": BEST}
        else:
            found = winner.behind[label]
            row |= {"behind": found.mean, "low": found.low, "high": found.high}
            row |= {"p_adjusted": winner.adjusted[label], "mark": TIED if label in winner.tied else ""}
        rows.append(row)
    return rows


def _wins(winners: Sequence[_Winner], shared: Common) -> Table:
    """Return a table of how many categories each row wins."""
    won, sure = Counter(w.best for w in winners), Counter(w.best for w in winners if w.is_sure)
    tied = Counter(label for winner in winners for label in winner.tied)
    rows = []
    for label in sorted(shared.labels, key=lambda label: (-won[label], -sure[label], label)):
        counts = (won[label], sure[label], tied[label])
        rows.append((label, [Entry(str(count), value=count) for count in counts]))
    total = sum(sure.values())
    notes = [
        f"of {counted(len(winners), 'category', 'categories')} with positives {total} "
        f"{'has' if total == 1 else 'have'} a sure winner: one that every other row is told from at "
        f"{100 * (1 - LEVEL):.0f} %",
        "tied: not told from the best row of a category",
    ]
    return Table("category-wins", "Categories won", ("best", "surely", "tied with the best"), rows, tuple(notes))


def _where(winners: Sequence[_Winner], average: str, shared: Common) -> Table:
    rows = []
    for winner in winners:
        second = next(iter(winner.behind))
        found = winner.behind[second]
        texts = [
            winner.best,
            f"{winner.precisions[winner.best]:.1f}",
            second,
            pairing.difference_text(found.mean, found.low, found.high, decimals=1),
            _sureness(winner),
        ]
        rows.append((winner.category, [Entry(text) for text in texts]))
    columns = ("best", "AP", "next", f"ahead [{100 * LEVEL:g} %]", "sure")
    over = "" if average.startswith("at ") else " over the known ratios"
    notes = [
        f"average precision in percent, {average}{over}, mean over {counted(len(shared.seeds), 'seed')}; ahead: of the "
        "next best, in points, on the same images and seeds",
        "sure: every other row is told from the best, else how many are not; p-values are corrected over all rows and "
        "categories (Holm), the seeds' spread is moderated by that of all of them; that the best was picked for being "
        "the best is not corrected",
        f"few: under {FEW_POSITIVES} evaluated images have the category, so no winner is called sure",
    ]
    caution = next(iter(winners[0].behind.values())).caution
    notes += [*filter(None, [caution]), *shared.cautions(), *shared.notes]
    left = (1, 3)
    return Table("category-winners", "Who wins where", columns, rows, tuple(notes), corner="category", left=left)


def _sureness(winner: _Winner) -> str:
    if winner.positives < FEW_POSITIVES:
        return f"few ({winner.positives})"
    return f"{len(winner.tied)} tied" if winner.tied else "yes"
