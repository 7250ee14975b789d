"""How sure a metric is: intervals over test images and seeds, paired comparisons, corrections, average ranks.

A metric is a smooth function of how much each image weighs, so a test set with other images is well described by each
image's *influence*, the derivative of the metric by the image's weight (the infinitesimal jackknife, Efron & Tibshirani
1993, "An Introduction to the Bootstrap", section 21.3)::

    metric(resampled images) ≈ metric(all images) + mean of the resampled images' influences

Influences cost one sort a category and are computed once; every interval and every comparison then resamples N numbers
instead of N x C scores. Array names end in dimensions: N images, C categories, P the PRESENT images of one category in
rank order, S seeds, K any number of vectors, R resamples, B blocks, M methods.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.errors import UserError
from mlrpl_bench.protocol import PRESENT, UNKNOWN
from mlrpl_bench.randomness import seed_of

ONE_SEED = (
    "one seed: the interval is over test images only; it says how sure the numbers of these trained models are, "
    "not whether training again would give the same, so nothing can be concluded about the method"
)
TWO_SEEDS = "two seeds: their spread has one degree of freedom, so the interval is very wide; more seeds narrow it"

ROWS_AT_ONCE = 16
"""Resamples turned into float64 at a time: small enough for a processor's cache at 40,504 images."""


class Measured(NamedTuple):
    """One metric of one method: what `interval` takes, and each side of `paired`.

    Attributes:
        influences_SN: by seed and test image, from `influences`; every seed on the same images in the same order.
        estimates_S: the metric by seed, from `metrics.evaluate`.
    """

    influences_SN: NDArray[np.floating]
    estimates_S: NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and how far it can be trusted, in the unit of the estimates (not clipped to [0, 1]).

    Attributes:
        low, high: the ends of the interval.
        images_error: standard error from the test images that all seeds share.
        seeds_error: standard error from the seeds, s / sqrt(S); NaN with one seed.
        caution: what cannot be concluded, empty from three seeds on.
    """

    mean: float
    low: float
    high: float
    level: float
    seeds: int
    images_error: float
    seeds_error: float
    caution: str


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of method a less that of method b.

    Attributes:
        p_value: two-sided, of no difference.
    """

    p_value: float


@dataclass(frozen=True)
class Spread:
    """What many comparisons together say of the seeds' variance in each of them, see `common_spread`.

    Attributes:
        variance: between seeds, typical of the family.
        degrees: how many seeds' worth of knowledge that is (degrees of freedom), infinity if all are alike.
    """

    variance: float
    degrees: float


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks over blocks.

    Attributes:
        ranks_M: from 1 (best in every block) to M.
        statistic, p_value: Friedman's chi-square and its p-value of all methods being equal; NaN for two methods.
        critical_difference: methods whose average ranks differ by less are not told apart.
        blocks: how many blocks the ranks rest on.
    """

    ranks_M: NDArray[np.float64]
    statistic: float
    p_value: float
    critical_difference: float
    blocks: int


def influences(scores_NC: ArrayLike, labels_NC: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Each image's influence on mAP, OF1 and CF1, as `metrics.evaluate` defines them.

    With image n weighing w_n (all 1) the influence is ``N * d metric / d w_n``. Its mean over images is 0 up to
    rounding, and ``influence.std() / sqrt(N)`` is the metric's standard error. It is exact to first order:

    - mAP: the interpolated precision at a PRESENT image i is the precision at the best rank m(i) at or after i, and by
      the envelope theorem its derivative is the one with m held fixed. See `_average_precision_influences`.
    - OF1 = 2 c / (p + g) for the sums of correct, predicted and PRESENT entries:
      ``N (2 c_n - OF1 (p_n + g_n)) / (p + g)``.
    - CF1: the delta method on CP and CR, ``2 (CR² dCP + CP² dCR) / (CP + CR)²``, where a category's
      ``dCP_c = N (c_nc - precision_c p_nc) / p_c``, and dCR_c the same with recall and g.

    Categories without a PRESENT label count only in OF1, UNKNOWN entries nowhere. That a resample can lose a rare
    category's last PRESENT image is not first order; expect too small errors where a category has under about ten.

    Args:
        scores_NC: finite logits; a label is predicted at 0 or more.
        labels_NC: PRESENT, ABSENT or UNKNOWN.

    Returns:
        ``mAP``, ``OF1``, ``CF1``: float64 [N], metrics as fractions.

    Raises:
        UserError: the shapes differ or are empty, a score is not finite, or nothing is PRESENT.

    >>> from mlrpl_bench.protocol import ABSENT
    >>> found = influences([[1.0], [-1.0], [-2.0]], [[PRESENT], [PRESENT], [ABSENT]])
    >>> found["OF1"].round(3)  # 1 correct, 1 predicted, 2 present: OF1 is 2/3, the missed image lowers it
    array([ 0.667, -0.667,  0.   ])
    """
    scores_NC = np.asarray(scores_NC, dtype=np.float64)
    labels_NC = np.asarray(labels_NC)
    _check_scores(scores_NC, labels_NC)
    present_NC = labels_NC == PRESENT
    predicted_NC = (scores_NC >= 0) & (labels_NC != UNKNOWN)
    return {
        "mAP": _mean_average_precision_influences(scores_NC, labels_NC),
        "OF1": _overall_f1_influences(predicted_NC, present_NC),
        "CF1": _category_f1_influences(predicted_NC, present_NC),
    }


def resampled_means(influences_KN: ArrayLike, resamples: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """The mean influence in each bootstrap sample of the N images; float64 [K, R].

    Every call with the same N, resamples and seed draws the same images, so differences of two vectors' results are
    results of their difference. Many vectors at once are cheaper than one by one.

    Raises:
        UserError: influences are not K x N, or not finite, or there is no resample to draw.
    """
    influences_KN = np.asarray(influences_KN, dtype=np.float64)
    if influences_KN.ndim != 2 or not influences_KN.size or not np.isfinite(influences_KN).all():
        raise UserError(f"influences {influences_KN.shape} must be finite numbers, vectors x images")
    if resamples < 1:
        raise UserError(f"{resamples} resamples are too few; ask for 1000 or more")
    times_drawn_RN = _times_drawn(influences_KN.shape[1], resamples, seed)
    influences_NK = np.ascontiguousarray(influences_KN.T)
    blocks = range(0, resamples, ROWS_AT_ONCE)
    sums = [times_drawn_RN[row : row + ROWS_AT_ONCE].astype(np.float64) @ influences_NK for row in blocks]
    return np.concatenate(sums).T / influences_KN.shape[1]


def interval(
    influences_SN: ArrayLike, estimates_S: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean over seeds, and an interval for what other test images and other seeds would give.

    Images and seeds are crossed: all seeds are tested on the same images. With s the seeds' standard deviation,

        mean of the estimates + mean influence of resampled images + s / sqrt(S) * Student's t with S - 1 degrees

    is drawn `resamples` times and its quantiles are the interval. Seeds are not drawn from the few there are: that
    would understate their variance by (S - 1) / S and leave out that s itself is uncertain, which Student's t is for.
    Noise of one seed on one image is in s already, so it is taken out of the images' part, whose variance becomes the
    mean covariance between two seeds' influences (the random effects of a crossed design; resampling both sides counts
    this noise more than once: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)). It is right
    where either part stands alone, and in between errs to the wide side, as Behrens-Fisher intervals do.

    It covers the value that as many images would give on average. Interpolation lifts average precision on small test
    sets (in simulation by a third of its standard error at 400 images), which no resampling takes out.

    With one seed it is the percentile bootstrap over images, and `caution` says so.

    Args:
        influences_SN: by seed and image.
        estimates_S: the metric by seed.
        level: in (0, 1).
        seed: of the resampling.

    Raises:
        UserError: shapes do not fit, a number is not finite, or the level is not in (0, 1).
    """
    return intervals([Measured(np.asarray(influences_SN), np.asarray(estimates_S))], level, resamples, seed)[0]


def intervals(rows: Sequence[Measured], level: float = 0.95, resamples: int = 2000, seed: int = 0) -> list[Interval]:
    """The `interval` of each of many rows on the same images; cheaper than one by one."""
    found = _intervals_and_draws(rows, level, resamples, seed, [None] * len(rows))
    return [of_row for of_row, _, _ in found]


def paired(
    a: Measured,
    b: Measured,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    spread: Spread | None = None,
) -> Difference:
    """How much better a is than b, on the same test images and with the same seeds in the same order.

    `interval` of the differences, image by image and seed by seed, so that what both methods share cancels. The p-value
    is the probability that the interval's distribution, moved to 0, lies as far from 0 as the measured difference. The
    images' part is resampled and the seeds' part is exact, ``mean over r of P(|image_r + s / sqrt(S) * t| ≥ |d|)``;
    without spread between seeds (or with one seed) it is the normal tail of the images' error, which a mean over many
    images nearly has.

    With one seed, `seeds` is 1 and `caution` says that nothing can be concluded about the methods: a small p-value then
    says that these two trained models differ.

    Args:
        spread: of a family of comparisons that this one belongs to: the seeds' variance is then moderated by it, see
            `common_spread`. It has no part in a comparison with one seed.

    Raises:
        UserError: a and b are not of the same images and seeds, or see `interval`.
    """
    return all_paired([(a, b)], level, resamples, seed, [spread])[0]


def all_paired(
    pairs: Sequence[tuple[Measured, Measured]],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    spreads: Sequence[Spread | None] | None = None,
) -> list[Difference]:
    """The `paired` comparison of each of many pairs on the same images; cheaper than one by one."""
    differences = [_difference(a, b) for a, b in pairs]
    found = _intervals_and_draws(differences, level, resamples, seed, spreads or [None] * len(pairs))
    return [
        Difference(**vars(of_pair), p_value=_p_value(of_pair, images_R, degrees))
        for of_pair, images_R, degrees in found
    ]


def common_spread(variances_K: ArrayLike, degrees: int) -> Spread | None:
    """What K comparisons with few seeds each teach about the variance between seeds in all of them.

    Two seeds say nearly nothing about their own variance, but thirty methods with two seeds each say much about what is
    usual. The true variances are taken for draws from a scaled inverse chi-squared distribution, whose scale and
    degrees of freedom d0 are fitted by the moments of the logarithms; a comparison's own variance s² then becomes
    (d0 s0² + d s²) / (d0 + d) with d0 + d degrees (Smyth 2004, "Linear models and empirical Bayes methods for assessing
    differential expression", section 6.2: what limma does). Its assumption: none of them is of another kind.

    Args:
        variances_K: sample variances of the seeds' differences.
        degrees: of each, the seeds less one.

    Returns:
        None for fewer than four comparisons, or with one seed: too little to learn from.
    """
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    variances_K = np.asarray(variances_K, dtype=np.float64)
    if degrees < 1 or len(variances_K) < 4 or not variances_K.any():
        return None
    floored_K = np.maximum(
        variances_K, 1e-5 * np.median(variances_K[variances_K > 0])
    )  # a variance of 0 has no logarithm
    logs_K = np.log(floored_K) - digamma(degrees / 2) + math.log(degrees / 2)
    excess = float(logs_K.var(ddof=1) - polygamma(1, degrees / 2))
    if excess <= 1e-6:
        return Spread(float(np.exp(logs_K.mean())), math.inf)
    prior = 2 * brentq(lambda half: float(polygamma(1, half)) - excess, 1e-6, 1e7)
    return Spread(float(np.exp(logs_K.mean() + digamma(prior / 2) - math.log(prior / 2))), prior)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values adjusted so that, of a whole family, any wrong rejection is as rare as the level says.

    With p in rising order, the k-th (from 0) of K becomes ``max over j ≤ k of min(1, (K - j) p_j)`` (Holm 1979, "A
    Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6).

    Returns:
        One a given p-value, in the given order, in [0, 1].

    Raises:
        UserError: a p-value is not in [0, 1], or they are no flat list.

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p_K = np.asarray(p_values, dtype=np.float64)
    if p_K.ndim != 1 or not ((p_K >= 0) & (p_K <= 1)).all():
        raise UserError("p-values must be a flat list of numbers in [0, 1]; leave out comparisons that were not made")
    order_K = np.argsort(p_K, kind="stable")
    adjusted_K = np.empty_like(p_K)
    adjusted_K[order_K] = np.minimum(1, np.maximum.accumulate(np.arange(len(p_K), 0, -1) * p_K[order_K]))
    return adjusted_K


def average_rank(table_BM: ArrayLike, level: float = 0.95) -> Ranking:
    """Ranks of methods averaged over blocks, such as (dataset, ratio), Friedman's test, and a critical difference.

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


def _check_scores(scores_NC: NDArray[np.float64], labels_NC: NDArray) -> None:
    if scores_NC.ndim != 2 or scores_NC.shape != labels_NC.shape or not scores_NC.size:
        raise UserError(
            f"scores {scores_NC.shape} and labels {labels_NC.shape} must both be images x categories, of one shape"
        )
    if not np.isfinite(scores_NC).all():
        raise UserError("a score is NaN or infinite; influences need finite logits")
    if not (labels_NC == PRESENT).any():
        raise UserError("no label is present, so no metric is defined")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level {level} is not between 0 and 1; 0.95 gives 95 % intervals")


def _mean_average_precision_influences(scores_NC: NDArray[np.float64], labels_NC: NDArray) -> NDArray[np.float64]:
    total_N = np.zeros(len(scores_NC))
    categories = 0
    # Laid out by category: its entries are neighbours in memory, and sorting them is faster.
    for scores_N, labels_N in zip(np.ascontiguousarray(scores_NC.T), np.ascontiguousarray(labels_NC.T), strict=True):
        present_N = labels_N == PRESENT
        if present_N.any():
            evaluated_N = np.flatnonzero(labels_N != UNKNOWN)
            total_N[evaluated_N] += _average_precision_influences(scores_N[evaluated_N], present_N[evaluated_N])
            categories += 1
    return total_N * (len(scores_NC) / categories)


def _average_precision_influences(scores_N: NDArray[np.float64], present_N: NDArray[np.bool_]) -> NDArray[np.float64]:
    """d AP / d w_n of one category's interpolated average precision, at weights of 1.

    Let P images be PRESENT, and at the rank of the k-th of them T_k = k the PRESENT and R_k all images so far. With
    m(i) the k ≥ i of the highest T_k / R_k, AP = sum_i w_i T_m(i) / R_m(i) / sum_i w_i. Then, with h_k the number of i
    whose m(i) is k, and the sum over those k that rank at or after n::

        P dAP/dw_n = sum_k h_k (y_n / R_k - T_k / R_k²) + y_n (T_m(n) / R_m(n) - AP)
    """
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_present_N = present_N[order_N]
    so_far_P = np.flatnonzero(sorted_present_N) + 1.0
    num_present = len(so_far_P)
    found_P = np.arange(1.0, num_present + 1)
    best_P = _best_at_or_after(found_P / so_far_P)
    interpolated_P = (found_P / so_far_P)[best_P]
    times_best_P = np.bincount(best_P, minlength=num_present)

    gains_P = _sums_from_here_on(times_best_P / so_far_P)
    losses = np.append(_sums_from_here_on(times_best_P * found_P / so_far_P**2), 0.0)  # none after the last PRESENT
    found_before_N: NDArray[np.intp] = np.cumsum(sorted_present_N) - sorted_present_N
    sorted_N = -losses[found_before_N]
    sorted_N[sorted_present_N] += gains_P + interpolated_P - interpolated_P.mean()

    influences_N = np.empty_like(sorted_N)
    influences_N[order_N] = sorted_N / num_present
    return influences_N


def _best_at_or_after(precisions_P: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where the highest value at or after each place stands."""
    backwards_P = precisions_P[::-1]
    is_highest_P = backwards_P >= np.maximum.accumulate(backwards_P)
    places_P = np.arange(len(precisions_P))
    return places_P[::-1][np.maximum.accumulate(np.where(is_highest_P, places_P, 0))][::-1]


def _sums_from_here_on(values_P: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(values_P[::-1])[::-1]


def _overall_f1_influences(predicted_NC: NDArray[np.bool_], present_NC: NDArray[np.bool_]) -> NDArray[np.float64]:
    correct_N = (predicted_NC & present_NC).sum(axis=1)
    counted_N = predicted_NC.sum(axis=1) + present_NC.sum(axis=1)
    f1 = 2 * correct_N.sum() / counted_N.sum()
    return len(correct_N) * (2 * correct_N - f1 * counted_N) / counted_N.sum()


def _category_f1_influences(predicted_NC: NDArray[np.bool_], present_NC: NDArray[np.bool_]) -> NDArray[np.float64]:
    kept_C = present_NC.any(axis=0)
    predicted_NC, present_NC = predicted_NC[:, kept_C], present_NC[:, kept_C]
    correct_NC = predicted_NC & present_NC
    precision, precision_influences_N = _mean_ratio_and_influences(correct_NC, predicted_NC)
    recall, recall_influences_N = _mean_ratio_and_influences(correct_NC, present_NC)
    if not precision + recall:
        return np.zeros(len(present_NC))
    return 2 * (recall**2 * precision_influences_N + precision**2 * recall_influences_N) / (precision + recall) ** 2


def _mean_ratio_and_influences(
    part_NC: NDArray[np.bool_], whole_NC: NDArray[np.bool_]
) -> tuple[float, NDArray[np.float64]]:
    """The mean over categories of part / whole (0 where the whole is 0), and each image's influence on it."""
    wholes_C = np.maximum(whole_NC.sum(axis=0), 1)
    ratios_C = part_NC.sum(axis=0) / wholes_C
    influences_N = part_NC @ (1 / wholes_C) - whole_NC @ (ratios_C / wholes_C)
    return float(ratios_C.mean()), influences_N * (len(part_NC) / part_NC.shape[1])


@functools.lru_cache(maxsize=2)
def _times_drawn(images: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """How often each bootstrap sample holds each image; read-only, 81 MB for 2000 samples of 40,504 images."""
    random = np.random.default_rng(seed_of("resampled images", seed, images))
    times_drawn_RN = np.empty((resamples, images), dtype=np.uint8)
    for row in range(resamples):
        times_drawn_RN[row] = np.bincount(random.integers(images, size=images), minlength=images)
    times_drawn_RN.flags.writeable = False
    return times_drawn_RN


def _difference(a: Measured, b: Measured) -> Measured:
    a_SN, b_SN = np.asarray(a.influences_SN, dtype=np.float64), np.asarray(b.influences_SN, dtype=np.float64)
    a_S, b_S = np.asarray(a.estimates_S, dtype=np.float64), np.asarray(b.estimates_S, dtype=np.float64)
    if a_SN.shape != b_SN.shape or a_S.shape != b_S.shape:
        raise UserError(
            f"a paired comparison needs the same seeds and images on both sides, not {a_SN.shape} and {b_SN.shape} "
            "(seeds x images); leave out the seeds that one of them lacks"
        )
    return Measured(a_SN - b_SN, a_S - b_S)


class _ImagesPart(NamedTuple):
    """What of a row's uncertainty is the images': the mean influence, its share that all seeds have, its error."""

    mean_N: NDArray[np.float64]
    shared: float
    error: float


def _intervals_and_draws(
    rows: Sequence[Measured], level: float, resamples: int, seed: int, spreads: Sequence[Spread | None]
) -> list[tuple[Interval, NDArray[np.float64], float]]:
    """By row the interval, the images' part of each resample, and the degrees of freedom of the seeds' part."""
    _check_level(level)
    parts = [_images_part(row) for row in rows]
    if len({len(part.mean_N) for part in parts}) > 1:
        raise UserError("rows of different numbers of test images have no intervals together")
    if not parts:
        return []
    drawn_KR = resampled_means([part.mean_N for part in parts], resamples, seed)
    return [
        _interval_and_draws(row, part, part.shared * drawn_R, level, seed, spread)
        for row, part, drawn_R, spread in zip(rows, parts, drawn_KR, spreads, strict=True)
    ]


def _images_part(row: Measured) -> _ImagesPart:
    influences_SN = np.asarray(row.influences_SN, dtype=np.float64)
    estimates_S = np.asarray(row.estimates_S, dtype=np.float64)
    fits = influences_SN.ndim == 2 and influences_SN.size and estimates_S.shape == influences_SN.shape[:1]
    if not fits or not np.isfinite(influences_SN).all() or not np.isfinite(estimates_S).all():
        raise UserError(
            f"influences {influences_SN.shape} must be finite numbers, seeds x images, and estimates "
            f"{estimates_S.shape} a finite number for each of these seeds"
        )
    mean_N = influences_SN.mean(axis=0)
    shared = _shared_part(influences_SN, float(mean_N.var()))
    return _ImagesPart(mean_N, shared, float(shared * mean_N.std() / math.sqrt(len(mean_N))))


def _interval_and_draws(
    row: Measured, part: _ImagesPart, images_R: NDArray[np.float64], level: float, seed: int, spread: Spread | None
) -> tuple[Interval, NDArray[np.float64], float]:
    estimates_S = np.asarray(row.estimates_S, dtype=np.float64)
    seeds = len(estimates_S)
    variance, degrees = _moderated(float(estimates_S.var(ddof=1)), seeds - 1, spread) if seeds > 1 else (math.nan, 0)
    seeds_error = math.sqrt(variance / seeds)
    draws_R = images_R + (seeds_error * _student_draws(degrees, len(images_R), seed) if seeds > 1 else 0.0)
    mean = float(estimates_S.mean())
    low, high = (float(end) for end in mean + np.quantile(draws_R, [(1 - level) / 2, (1 + level) / 2]))
    caution = {1: ONE_SEED, 2: TWO_SEEDS}.get(seeds, "")
    return Interval(mean, low, high, level, seeds, part.error, seeds_error, caution), images_R, degrees


def _moderated(variance: float, degrees: float, spread: Spread | None) -> tuple[float, float]:
    if spread is None:
        return variance, degrees
    if math.isinf(spread.degrees):
        return spread.variance, math.inf
    total = spread.degrees + degrees
    return (spread.degrees * spread.variance + degrees * variance) / total, total


def _shared_part(influences_SN: NDArray[np.float64], variance: float) -> float:
    """The share, in [0, 1] and of a standard deviation, of the mean influence that all seeds have in common.

    The mean over S seeds has the variance v = shared + own / S, one seed shared + own on average, so shared is
    (S v - that average) / (S - 1).
    """
    seeds = len(influences_SN)
    if seeds == 1 or not variance:
        return 1.0
    shared = (seeds * variance - float(influences_SN.var(axis=1).mean())) / (seeds - 1)
    return math.sqrt(max(shared, 0.0) / variance)


@functools.lru_cache(maxsize=256)
def _student_draws(degrees: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """Student's t at evenly spaced probabilities, shuffled: heavy tails without the noise of drawing them."""
    from scipy.stats import t

    random = np.random.default_rng(seed_of("student", seed, resamples))
    draws_R: NDArray[np.float64] = random.permutation(t.ppf((np.arange(resamples) + 0.5) / resamples, degrees))
    draws_R.flags.writeable = False
    return draws_R


def _p_value(found: Interval, images_R: NDArray[np.float64], degrees: float) -> float:
    from scipy.stats import norm, t

    distance = abs(found.mean)
    if not found.seeds_error > 0:  # NaN with one seed
        # The normal tail, since a count of resamples cannot fall below 1 / R: too much for Holm over a large table.
        if not found.images_error > 0:
            return 1.0 if not distance else 0.0
        return float(2 * norm.sf(distance / found.images_error))
    above_R = t.sf((distance - images_R) / found.seeds_error, degrees)
    below_R = t.cdf((-distance - images_R) / found.seeds_error, degrees)
    return min(1.0, float((above_R + below_R).mean()))


@functools.lru_cache
def _studentized_range(methods: int, level: float) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, methods, np.inf))
