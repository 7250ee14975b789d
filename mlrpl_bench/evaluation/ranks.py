"""Ranks methods over data sets, with Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.evaluation.intervals import _check_level
from mlrpl_bench.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Ranking:
    """A ranking holds average ranks over blocks and how far they can be told apart.

    Attributes:
        ranks_M: from 1 (best in every block) to M.
        statistic: Friedman's chi-square; NaN for two methods.
        p_value: of all methods being equal; NaN for two methods.
        critical_difference: methods whose average ranks differ by less are not told apart.
        blocks: how many blocks the ranks rest on.
    """

    ranks_M: NDArray[np.float64]
    statistic: float
    p_value: float
    critical_difference: float
    blocks: int


def average_rank(table_BM: ArrayLike, level: float = 0.95) -> Ranking:
    """Average the ranks of methods over blocks, such as (dataset, ratio), and test whether they differ.

    In each block the highest number has rank 1 and equal ones share the mean of their ranks. Two methods are told apart
    at ``CD = q sqrt(M (M + 1) / (6 B))`` (Nemenyi) with q the studentized range's quantile over sqrt 2 (Demšar 2006,
    "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, section 3.2.2).

    Both take blocks for independent. Ratios of one dataset share test images and seeds, so over the ratios of a single
    dataset they say less than their numbers claim.

    Args:
        table_BM: by block and method, higher is better; a block is complete or left out by the caller.
        level: of the critical difference, in (0, 1).

    Raises:
        UserError: fewer than two blocks or methods, a number is not finite, or the level is not in (0, 1).
    """
    from scipy.stats import friedmanchisquare, rankdata

    table_BM = np.asarray(table_BM, dtype=np.float64)
    if table_BM.ndim != 2 or min(table_BM.shape) < 2:
        raise UserError(f"average ranks need two blocks and two methods or more, not a table of {table_BM.shape}")
    if not np.isfinite(table_BM).all():
        raise UserError("a block lacks a method's number; leave out blocks that not every method has run on")
    _check_level(level)
    blocks, methods = table_BM.shape
    ranks_BM = rankdata(-table_BM, axis=1)
    statistic, p_value = math.nan, math.nan
    if methods > 2 and (ranks_BM == ranks_BM[:, :1]).all():
        statistic, p_value = 0.0, 1.0  # everything ties: scipy divides 0 by 0
    elif methods > 2:
        statistic, p_value = map(float, friedmanchisquare(*ranks_BM.T))
    difference = _studentized_range(methods, level) / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * blocks))
    return Ranking(ranks_BM.mean(axis=0), statistic, p_value, difference, blocks)


@functools.lru_cache
def _studentized_range(methods: int, level: float) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, methods, np.inf))
