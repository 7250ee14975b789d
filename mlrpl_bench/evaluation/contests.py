"""Rates rows by who beats whom: win rates and Elo ratings, with a bootstrap over data sets and seeds.

Array names end in dimensions: B blocks, M rows, G groups of blocks that are drawn together, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.evaluation.intervals import _check_level
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import seed_of

ELO_MEAN = 1500.0
ELO_SCALE = 400 / math.log(10)
"""A unit of log-odds is this many Elo points: 400 points more win ten of eleven contests."""

MOST_STEPS = 200
"""Newton's method needs about ten, and under forty where contests are a hundred thousand times as many as others."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings say how often rows beat each other.

    Attributes:
        elo_M: Elo ratings, with `ELO_MEAN` as their mean.
        elo_ends_2M: lower and upper ends of their intervals; NaN of a row that met others in but one group.
        win_rate_M: share of a row's contests that it won, ties counted half, in [0, 1].
        win_rate_ends_2M: the ends of its interval.
        wins_MM: contests that the row of the first index won against that of the second, ties counted half.
        games_MM: contests between the two.
    """

    elo_M: NDArray[np.float64]
    elo_ends_2M: NDArray[np.float64]
    win_rate_M: NDArray[np.float64]
    win_rate_ends_2M: NDArray[np.float64]
    wins_MM: NDArray[np.float64]
    games_MM: NDArray[np.float64]


def wins(table_BM: ArrayLike) -> NDArray[np.float64]:
    """Count in how many blocks each row has a higher number than each other one; equal ones are half a win each.

    Args:
        table_BM: by block and row, higher is better; NaN where a row has no number, which is then no contest.

    Returns:
        [M, M], the winner first; 0 on the diagonal.

    >>> wins([[3.0, 1.0], [2.0, 2.0], [np.nan, 5.0]])
    array([[0. , 1.5],
           [0.5, 0. ]])
    """
    table_BM = np.asarray(table_BM, dtype=np.float64)
    differences_BMM = table_BM[:, :, None] - table_BM[:, None, :]
    won_MM = (differences_BMM > 0).sum(axis=0) + 0.5 * (differences_BMM == 0).sum(axis=0)
    np.fill_diagonal(won_MM, 0.0)
    return won_MM


def log_strengths(wins_RMM: ArrayLike) -> NDArray[np.float64]:
    """Fit the Bradley-Terry model, in which row i beats row j with the odds of their strengths.

    It maximises ``sum of wins_ij log(s_i / (s_i + s_j))`` (Bradley & Terry 1952, "Rank Analysis of Incomplete Block
    Designs", Biometrika 39), for R tables of wins at once, by Newton's method. Its steps are shortened so that each one
    leads upwards (Bach 2010, "Self-concordant analysis for logistic regression", Electronic Journal of Statistics 4);
    whole ones go astray where some rows meet a thousand times as often as others. The maximum is the limit of Elo's
    rule without its dependence on the order of the contests.

    Args:
        wins_RMM: by winner and loser. Every two rows must be linked by wins in both directions, directly or over
            others, or there is no maximum; `rate` sees to it.

    Returns:
        Natural logarithms of the strengths, [R, M], with a mean of 0 over the rows.
    """
    from scipy.special import expit

    wins_RMM = np.asarray(wins_RMM, dtype=np.float64)
    games_RMM = wins_RMM + wins_RMM.transpose(0, 2, 1)
    most_R = games_RMM.sum(axis=2).max(axis=1)
    rows = wins_RMM.shape[1]
    logs_RM = np.zeros(wins_RMM.shape[:2])
    for _ in range(MOST_STEPS):
        chances_RMM = expit(logs_RM[:, :, None] - logs_RM[:, None, :])
        slopes_RM = (wins_RMM - games_RMM * chances_RMM).sum(axis=2)
        if (np.abs(slopes_RM).max(axis=1) <= 1e-9 * most_R).all():
            return logs_RM
        curvatures_RMM = -games_RMM * chances_RMM * (1 - chances_RMM)
        places = np.arange(rows)
        curvatures_RMM[:, places, places] = -curvatures_RMM.sum(axis=2)
        # All strengths times the same change nothing; the constant makes that direction's step 0 instead of any.
        steps_RM = np.linalg.solve(curvatures_RMM + 1 / rows, slopes_RM[:, :, None])[:, :, 0]
        widths_R1 = np.maximum(np.ptp(steps_RM, axis=1, keepdims=True), 1e-300)
        logs_RM = logs_RM + steps_RM * np.log1p(widths_R1) / widths_R1
    raise AssertionError("the ratings have not converged")


def rate(
    table_BM: ArrayLike,
    groups: Sequence[tuple[Hashable, Hashable]],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Ratings:
    """Rate rows over blocks, each of which is a contest of every two rows that have a number there.

    Elo ratings are `log_strengths` on Elo's scale. A row that won all its contests would be infinitely strong, so every
    two rows that ever met are given one tie more, which pulls ratings together by the less the more blocks there are.

    The bootstrap draws data sets, and within each drawn one seeds, with replacement; a drawn seed of a data set brings
    all its blocks (known ratios), which share images and masks. With one data set it is over seeds alone. Quantiles of
    what the resamples give are the interval; few data sets or seeds are drawn from too few, so it is then too narrow.

    Args:
        table_BM: by block and row, higher is better, NaN where a row has no number.
        groups: of each block the data set and the seed.
        level: of the intervals, in (0, 1).
        seed: of the resampling.

    Raises:
        UserError: there are fewer than two rows, two rows are linked by no contests, or the level is not in (0, 1).
    """
    _check_level(level)
    table_BM = np.asarray(table_BM, dtype=np.float64)
    wins_MM = wins(table_BM) if table_BM.ndim == 2 and table_BM.size else np.zeros((0, 0))
    games_MM = wins_MM + wins_MM.T
    if len(games_MM) < 2 or len(set(linked(games_MM).tolist())) > 1:
        raise UserError("ratings need two rows or more that met each other, directly or over others")
    tie_MM = (games_MM > 0) / 2
    elo_M = ELO_MEAN + ELO_SCALE * log_strengths((wins_MM + tie_MM)[None])[0]
    ends_2M = np.full((2, len(elo_M)), np.nan)
    found = Ratings(elo_M, ends_2M, wins_MM.sum(axis=1) / games_MM.sum(axis=1), ends_2M, wins_MM, games_MM)
    names = sorted(set(groups), key=str)
    if len(names) < 2:
        return found
    places_B = np.array([names.index(group) for group in groups])
    wins_GMM = np.array([wins(table_BM[places_B == place]) for place in range(len(names))])
    drawn_RMM = np.einsum("rg,gij->rij", times_drawn(names, resamples, seed).astype(np.float64), wins_GMM)
    games_RM = (drawn_RMM + drawn_RMM.transpose(0, 2, 1)).sum(axis=2)
    there_RM = games_RM > 0
    elo_RM = np.where(there_RM, ELO_MEAN + ELO_SCALE * log_strengths(drawn_RMM + tie_MM), np.nan)
    rates_RM = np.where(there_RM, drawn_RMM.sum(axis=2) / np.maximum(games_RM, 1), np.nan)
    at = [(1 - level) / 2, (1 + level) / 2]
    elo_ends_2M, rate_ends_2M = (np.nanquantile(each_RM, at, axis=0) for each_RM in (elo_RM, rates_RM))
    met_GM = (wins_GMM + wins_GMM.transpose(0, 2, 1)).sum(axis=2) > 0
    alone_M = met_GM.sum(axis=0) < 2  # its own contests are the same in every resample, only the others' are drawn
    elo_ends_2M[:, alone_M] = rate_ends_2M[:, alone_M] = np.nan
    return Ratings(elo_M, elo_ends_2M, found.win_rate_M, rate_ends_2M, wins_MM, games_MM)


def linked(games_MM: ArrayLike) -> NDArray[np.int32]:
    """Number the sets of rows that met each other, directly or over others; [M], the set of each row."""
    from scipy.sparse.csgraph import connected_components

    sets_M: NDArray[np.int32] = connected_components(np.asarray(games_MM) > 0, directed=False)[1]
    return sets_M


def times_drawn(groups: Sequence[tuple[Hashable, Hashable]], resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """Count how often each bootstrap sample holds each pair of data set and seed; [R, G].

    Args:
        groups: the data set and the seed of each, no two alike.
    """
    random = np.random.default_rng(seed_of("contests", seed, len(groups)))
    by_dataset: dict[Hashable, list[int]] = {}
    for place, (dataset, _) in enumerate(groups):
        by_dataset.setdefault(dataset, []).append(place)
    places = list(by_dataset.values())
    times_RG = np.zeros((resamples, len(groups)), dtype=np.int64)
    for row in range(resamples):
        for drawn in random.integers(len(places), size=len(places)):
            of = places[drawn]
            times_RG[row] += np.bincount(np.array(of)[random.integers(len(of), size=len(of))], minlength=len(groups))
    return times_RG
