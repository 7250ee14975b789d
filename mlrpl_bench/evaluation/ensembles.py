"""Computes scores of ensembles, and how sure a mean over all ensembles of two seeds is.

Array names end in dimensions: K members, N images, C categories, S seeds, P pairs of seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.evaluation.intervals import Measured
from mlrpl_bench.utils.errors import UserError

Pairs = Mapping[tuple[int, int], Measured]
"""This maps the places of two seeds, the lower first, to one metric of their ensemble, as a `Measured` of one seed."""


def pooled_logits(logits_KNC: ArrayLike) -> NDArray[np.float64]:
    """Compute the logits of the mean probabilities of K models; float64 [N, C].

    Probabilities are averaged, not logits, as deep ensembles do (Lakshminarayanan et al. 2017, "Simple and Scalable
    Predictive Uncertainty Estimation using Deep Ensembles", section 2.4): losses put logits on scales of their own, and
    a mean of logits weighs each member by its scale. The result is ``log sum p - log sum (1 - p)`` with both sums taken
    of logarithms, so probabilities that float64 would round to 1 still have their order.

    Args:
        logits_KNC: finite logits of each member on the same images, at least one member.

    Raises:
        UserError: they are not members x images x categories, or not finite.

    >>> pooled_logits([[[2.0]], [[-2.0]]]), pooled_logits([[[3.0]]]).round(12)
    (array([[0.]]), array([[3.]]))
    """
    from scipy.special import log_expit, logsumexp

    logits_KNC = np.asarray(logits_KNC, dtype=np.float64)
    if logits_KNC.ndim != 3 or not logits_KNC.size or not np.isfinite(logits_KNC).all():
        raise UserError(
            f"logits {logits_KNC.shape} must be finite numbers, members x images x categories; leave out damaged ones"
        )
    pooled_NC: NDArray[np.float64] = logsumexp(log_expit(logits_KNC), axis=0) - logsumexp(
        log_expit(-logits_KNC), axis=0
    )
    return pooled_NC


def over_pairs(pairs: Pairs, seeds: int) -> Measured:
    """Turn the ensembles of all pairs of S seeds into one number a seed, which `intervals` takes as any other row's.

    Ensembles that share a seed are not independent, so they are no repetitions of each other. The jackknife's
    pseudo-value of a seed is ``S U - (S - 1) U without this seed``, with U the mean over all pairs; their mean is U,
    and their spread over seeds estimates its error (Arvesen 1969, "Jackknifing U-Statistics", Annals of Mathematical
    Statistics 40(6)). A mean over seeds is its own pseudo-values, so a pair's pseudo-values less single
    models' numbers, seed by seed, are those of the difference. Both the estimates and the images' influences are linear
    in the pairs: a pair with the seed counts ``2 / (S - 1)``, one without it ``2 / (S - 1) - 2 / (S - 2)``.

    Two seeds have one pair and tell nothing about other seeds: the result is a row of one seed.

    Args:
        pairs: every pair of the places 0 to S - 1.
        seeds: S, at least 2.

    Raises:
        UserError: there are fewer than two seeds.
    """
    if seeds < 2:
        raise UserError("an ensemble of two seeds needs records of two seeds; train with --seeds 2 or more")
    assert set(pairs) == set(combinations(range(seeds), 2)), "every pair once"
    influences_PN = np.concatenate([np.asarray(pair.influences_SN, dtype=np.float64) for pair in pairs.values()])
    estimates_P = np.concatenate([np.asarray(pair.estimates_S, dtype=np.float64) for pair in pairs.values()])
    if seeds == 2:
        return Measured(influences_PN, estimates_P)
    has_SP = np.array([[place in pair for pair in pairs] for place in range(seeds)])
    weights_SP = 2 / (seeds - 1) - np.where(has_SP, 0.0, 2 / (seeds - 2))
    return Measured(weights_SP @ influences_PN, weights_SP @ estimates_P)


def as_one(row: Measured) -> Measured:
    """Take the mean over seeds of a row as a row of one seed: beside one that has no repetitions nothing else fits."""
    influences_SN = np.asarray(row.influences_SN, dtype=np.float64)
    return Measured(influences_SN.mean(axis=0, keepdims=True), np.asarray(row.estimates_S).mean(keepdims=True))
