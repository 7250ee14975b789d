"""Rates rows by who has the higher mAP: Elo and win rates over (data set, known ratio, seed), beside average ranks.

Records are all that is needed. Those count that ranks over data sets count, see `dataset_ranks`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlrpl_bench.evaluation import contests, ranks
from mlrpl_bench.evaluation.contests import Ratings
from mlrpl_bench.leaderboard.comparison import check_known
from mlrpl_bench.leaderboard.evidence import Seeds
from mlrpl_bench.leaderboard.measurements import LEVEL
from mlrpl_bench.leaderboard.pairing import percents
from mlrpl_bench.leaderboard.tables.analyses.analysis import Analysis
from mlrpl_bench.leaderboard.tables.dataset_ranks import of_one_setting
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import Entry, Table, counted

COLUMNS = (
    *("kind", "method", "against", "elo", "elo_low", "elo_high", "win_rate", "win_rate_low", "win_rate_high"),
    *("average_rank", "wins", "games"),
)
FEW_DATASETS = 5
"""A bootstrap over fewer data sets says little about other ones, and the table says so."""

MOST_COLUMNS = 12
"""This is the most rows for a table of every row against every other one; the frame always has these numbers."""

Block = tuple[str, float, Seeds]
"""This is a data set, a known ratio and seeds."""


@dataclass(frozen=True)
class _Blocks:
    """The numbers that are ranked: mAP in percent by block and row, NaN where a row has none."""

    labels: Sequence[str]
    blocks: Sequence[Block]
    table_BM: NDArray[np.float64]


def analyse(
    store: ResultStore,
    methods: Mapping[str, MethodEntry],
    labels: Sequence[str] = (),
    datasets: Sequence[str] | None = None,
    ratios: Sequence[float] | None = None,
) -> Analysis:
    """Rate the rows of all data sets' records.

    Args:
        store: the records.
        methods: by name, to tell which records are of the methods as they are now.
        labels: the rows that are rated; empty for all.
        datasets: the data sets that count; None for all.
        ratios: the known ratios that count; None for all below 1.

    Returns:
        A frame with `COLUMNS`; ``kind`` is ``row`` (of one row: its ratings) or ``pair`` (of two: ``wins`` of
        ``method`` in their ``games``). ``win_rate`` is in percent.

    Raises:
        UserError: an unknown data set or row, or fewer than two rows with a common block.
    """
    there = store.datasets()
    if unknown := sorted(set(datasets or ()) - set(there)):
        raise UserError(f"no records of data set {unknown[0]!r}; there are: {', '.join(there) or 'none'}")
    used: list[Record] = []
    notes: list[str] = []
    for dataset in there if datasets is None else datasets:
        survey = store.survey(dataset)
        found = [
            record
            for record in of_one_setting(survey.records, methods)
            if ratios is None or record.cell.ratio in ratios
        ]
        used += found
        if survey.problems:
            notes.append(f"{counted(len(survey.problems), 'record')} of {dataset} cannot be used")
        if survey.records and not found:
            notes.append(
                f"no record of {dataset} counts: of other ratios, other masks, or of methods that have changed"
            )
    check_known({record.cell.label for record in used}, labels)
    blocks = _blocks([record for record in used if not labels or record.cell.label in labels])
    if len(blocks.labels) < 2:
        raise UserError(
            f"{len(blocks.labels) or 'no'} row has records that count; two or more meet each other: train more, or "
            "name other rows, ratios or data sets"
        )
    blocks, alone = _linked(blocks)
    if alone:
        notes.append(f"without a block in common with the others, so not rated: {', '.join(alone)}")
    groups = [(dataset, seeds) for dataset, _, seeds in blocks.blocks]
    ratings = contests.rate(blocks.table_BM, groups, LEVEL)
    ranks_M, complete = _average_ranks(blocks.table_BM)
    notes = [*_about(blocks, complete, ratings), *notes]
    is_small = len(blocks.labels) <= MOST_COLUMNS
    if not is_small:
        notes.append("who won against whom: in the file's lines of kind pair, as so many rows have no table to read")
    tables = [_table(blocks.labels, ratings, ranks_M, notes), *([_pairs(blocks.labels, ratings)] if is_small else [])]
    return Analysis("ranks", pd.DataFrame(_tidy(blocks.labels, ratings, ranks_M), columns=list(COLUMNS)), tables)


def _blocks(records: Iterable[Record]) -> _Blocks:
    found: dict[Block, dict[str, float]] = {}
    for record in records:
        cell = record.cell
        block = (cell.setting.dataset, cell.ratio, (cell.seed, cell.mask_seed))
        found.setdefault(block, {})[cell.label] = 100 * record.metrics["mAP"]
    labels, blocks = sorted({label for row in found.values() for label in row}), sorted(found)
    table_BM = np.array([[found[block].get(label, math.nan) for label in labels] for block in blocks])
    return _Blocks(labels, blocks, table_BM)


def _linked(of: _Blocks) -> tuple[_Blocks, list[str]]:
    """Return the largest set of rows that met each other, directly or over others, and the rows beside it."""
    won_MM = contests.wins(of.table_BM)
    sets_M = contests.linked(won_MM + won_MM.T)
    largest = Counter(sets_M.tolist()).most_common(1)[0][0]
    kept = [number == largest for number in sets_M.tolist()]
    alone = [label for label, is_kept in zip(of.labels, kept, strict=True) if not is_kept]
    kept_M = np.array(kept)
    there_B = np.array([not np.isnan(row_M[kept_M]).all() for row_M in of.table_BM])
    labels = [label for label in of.labels if label not in alone]
    blocks = [block for block, there in zip(of.blocks, there_B.tolist(), strict=True) if there]
    return _Blocks(labels, blocks, of.table_BM[there_B][:, kept_M]), alone


def _average_ranks(table_BM: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Average ranks over the blocks in which every row has a number, and how many these are."""
    complete_BM = table_BM[~np.isnan(table_BM).any(axis=1)]
    if len(complete_BM) < 2:
        return np.full(table_BM.shape[1], np.nan), len(complete_BM)
    return ranks.average_rank(complete_BM, LEVEL).ranks_M, len(complete_BM)


def _about(of: _Blocks, complete: int, ratings: Ratings) -> list[str]:
    low_M, high_M = ratings.win_rate_ends_2M
    any_always = bool(((low_M == high_M) & ((low_M == 0) | (low_M == 1))).any())
    of_one_seed = [label for label, low in zip(of.labels, low_M.tolist(), strict=True) if math.isnan(low)]
    by_dataset: dict[str, tuple[set[float], set[Seeds]]] = {}
    for dataset, ratio, seeds in of.blocks:
        found = by_dataset.setdefault(dataset, (set(), set()))
        found[0].add(ratio)
        found[1].add(seeds)
    over = "; ".join(
        f"{dataset} at {percents(sorted(ratios))}, {counted(len(seeds), 'seed')}"
        for dataset, (ratios, seeds) in by_dataset.items()
    )
    notes = [
        f"by mAP in {counted(len(of.blocks), 'block')} of data set, known ratio and seed ({over}); in a block every "
        "two rows meet, and the higher mAP wins, by however little",
        "Elo: the Bradley-Terry model, the limit of Elo's rule whatever the order of contests, with one tie more for "
        "every two rows that met; mean 1500; 400 points more win ten of eleven contests",
        "won: the win rate, the share of a row's contests that it won, ties half; it depends on the other rows here",
        f"rank: the average over the {counted(complete, 'block')} in which every row has a number; 1 is best",
    ]
    groups = sum(len(seeds) for _, seeds in by_dataset.values())
    if groups < 2:
        return [*notes, "one data set and one seed: no intervals, and nothing can be concluded about the methods"]
    if len(by_dataset) == 1:
        notes.append(
            f"{100 * LEVEL:g} % intervals: a bootstrap over seeds alone, whose ratios are drawn together; they say "
            "nothing about other data sets or test images"
        )
    else:
        notes.append(
            f"{100 * LEVEL:g} % intervals: a bootstrap over data sets, and over seeds within each; a seed's ratios are "
            "drawn together"
        )
        if len(by_dataset) < FEW_DATASETS:
            notes.append(f"{len(by_dataset)} data sets are few to draw from: the intervals are too narrow")
    if any_always:
        notes.append(
            "an interval of no width: in every resample the row won all its contests or lost all, so nothing was seen "
            "of how often it does not"
        )
    if of_one_seed:
        notes.append(f"no interval, as one seed of one data set says nothing about others: {', '.join(of_one_seed)}")
    if groups / len(by_dataset) < 3:
        notes.append("fewer than three seeds a data set are few to draw from: the intervals are too narrow")
    return notes


def _tidy(labels: Sequence[str], ratings: Ratings, ranks_M: NDArray[np.float64]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for place, label in enumerate(labels):
        elo = dict(zip(("elo_low", "elo_high"), ratings.elo_ends_2M[:, place], strict=True))
        rate = dict(zip(("win_rate_low", "win_rate_high"), 100 * ratings.win_rate_ends_2M[:, place], strict=True))
        facts = {"elo": ratings.elo_M[place], **elo, "win_rate": 100 * ratings.win_rate_M[place], **rate}
        played = {"wins": ratings.wins_MM[place].sum(), "games": ratings.games_MM[place].sum()}
        rows.append({"kind": "row", "method": label, "against": "", **facts, "average_rank": ranks_M[place], **played})
    for place, label in enumerate(labels):
        for other, against in enumerate(labels):
            won, games = ratings.wins_MM[place, other], ratings.games_MM[place, other]
            if games:
                played = {"win_rate": 100 * won / games, "wins": won, "games": games}
                rows.append({"kind": "pair", "method": label, "against": against, **played})
    return rows


def _table(labels: Sequence[str], ratings: Ratings, ranks_M: NDArray[np.float64], notes: Sequence[str]) -> Table:
    rows = []
    for place in _from_the_best(ratings):
        elo, low, high = ratings.elo_M[place], *ratings.elo_ends_2M[:, place]
        rate, rate_low, rate_high = 100 * ratings.win_rate_M[place], *(100 * ratings.win_rate_ends_2M[:, place])
        rank = ranks_M[place]
        entries = [
            Entry(f"{elo:.0f}", value=elo),
            Entry(_ends(low, high)),
            Entry(f"{rate:.0f}", value=rate),
            Entry(_ends(rate_low, rate_high)),
            Entry("-" if math.isnan(rank) else f"{rank:.2f}", value=rank),
        ]
        rows.append((labels[place], entries))
    columns = ("Elo", "95 % interval", "won (%)", "95 % interval", "rank")
    return Table("elo", "Who wins", columns, rows, tuple(notes))


def _pairs(labels: Sequence[str], ratings: Ratings) -> Table:
    order = _from_the_best(ratings)
    rows = []
    for place in order:
        shares = [
            100 * ratings.wins_MM[place, other] / ratings.games_MM[place, other]
            if ratings.games_MM[place, other]
            else math.nan
            for other in order
        ]
        rows.append((labels[place], [Entry("" if math.isnan(s) else f"{s:.0f}", value=s) for s in shares]))
    note = "percent of their common blocks in which the row has a higher mAP than the column, ties half"
    return Table("win-rates", "Row against column", tuple(labels[place] for place in order), rows, (note,))


def _from_the_best(ratings: Ratings) -> list[int]:
    order: list[int] = np.argsort(-ratings.elo_M, kind="stable").tolist()
    return order


def _ends(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.0f} – {high:.0f}"
