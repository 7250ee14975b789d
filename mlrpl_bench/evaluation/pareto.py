"""Finds what nothing beats in two respects at once: the Pareto front of costs and values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.utils.errors import UserError


def front(costs_K: ArrayLike, values_K: ArrayLike) -> NDArray[np.bool_]:
    """Tell for each of K points whether no other one costs at most as much and is worth at least as much.

    A point that is beaten in one respect alone and equal in the other is not on the front; of points that are equal in
    both, all are or none is.

    Args:
        costs_K: lower is better.
        values_K: higher is better.

    Raises:
        UserError: they are not as many, or a number is not finite.

    >>> front([1, 2, 2, 3], [50, 60, 55, 60])
    array([ True,  True, False, False])
    """
    costs_K, values_K = np.asarray(costs_K, dtype=np.float64), np.asarray(values_K, dtype=np.float64)
    if costs_K.ndim != 1 or costs_K.shape != values_K.shape or not np.isfinite([costs_K, values_K]).all():
        raise UserError(f"costs {costs_K.shape} and values {values_K.shape} must be finite numbers, one each a point")
    is_on_K = np.zeros(len(costs_K), dtype=bool)
    best = -np.inf
    for cost in np.unique(costs_K):
        at_cost_K = costs_K == cost
        highest = values_K[at_cost_K].max()
        if highest > best:
            is_on_K |= at_cost_K & (values_K == highest)
            best = highest
    return is_on_K
