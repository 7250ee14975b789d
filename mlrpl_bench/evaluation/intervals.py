"""Computes how sure a metric is: intervals over test images and seeds, paired comparisons, corrections.

A metric is a smooth function of how much each image weighs, so a test set with other images is well described by each
image's *influence*, the derivative of the metric by the image's weight::

    metric(resampled images) ≈ metric(all images) + mean of the resampled images' influences

Influences cost one sort a category and are computed once; every interval and every comparison then resamples N numbers
instead of N x C scores. They come from `influences`. Array names end in dimensions: N images, C categories, S seeds, K
any number of vectors, R resamples, B blocks, M methods.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import seed_of

ONE_SEED = (
    "one seed: the interval is over test images only; it says how sure the numbers of these trained models are, "
    "not whether training again would give the same, so nothing can be concluded about the method"
)


TWO_SEEDS = "two seeds: their spread has one degree of freedom, so the interval is very wide; more seeds narrow it"

Name = TypeVar("Name", bound=Hashable)

ROWS_AT_ONCE = 16
"""This many resamples are turned into float64 at a time: small enough for a processor's cache at 40,504 images."""


class Measured(NamedTuple):
    """One metric of one method was measured: what `interval` takes, and each side of `paired`.

    Attributes:
        influences_SN: by seed and test image, from `influences`; every seed on the same images in the same order.
        estimates_S: the metric by seed, from `metrics.evaluate`.
    """

    influences_SN: NDArray[np.floating]
    estimates_S: NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """An interval says how far a mean over seeds can be trusted, in the unit of the estimates (not clipped to [0, 1]).

    Attributes:
        mean: over the seeds.
        low: the lower end of the interval.
        high: the upper end of the interval.
        level: of the interval, in (0, 1).
        seeds: how many there are.
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
    """A difference is the mean of method a less that of method b, as an interval.

    Attributes:
        p_value: two-sided, of no difference.
    """

    p_value: float


@dataclass(frozen=True)
class Spread:
    """A spread holds what many comparisons say together of the seeds' variance in each of them, see `common_spread`.

    Attributes:
        variance: between seeds, typical of the family.
        degrees: how many seeds' worth of knowledge that is (degrees of freedom), infinity if all are alike.
    """

    variance: float
    degrees: float


def resampled_means(influences_KN: ArrayLike, resamples: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Compute the mean influence in each of R bootstrap samples of the N images; float64 [K, R].

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
    """Compute the mean over seeds, and an interval for what other test images and other seeds would give.

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
    """Compute the `interval` of each of many rows on the same images, which is cheaper than one by one."""
    found = _intervals_and_draws(rows, level, resamples, seed, [None] * len(rows))
    return [one for one, _, _ in found]


def paired(
    a: Measured,
    b: Measured,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    spread: Spread | None = None,
) -> Difference:
    """Compare a with b on the same test images and with the same seeds in the same order: how much better is a?

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
    """Make the `paired` comparison of each of many pairs on the same images, which is cheaper than one by one."""
    differences = [_difference(a, b) for a, b in pairs]
    found = _intervals_and_draws(differences, level, resamples, seed, spreads or [None] * len(pairs))
    return [Difference(**vars(one), p_value=_p_value(one, images_R, degrees)) for one, images_R, degrees in found]


def common_spread(variances_K: ArrayLike, degrees: int) -> Spread | None:
    """Estimate from K comparisons with few seeds each how large the variance between seeds is in all of them.

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
    """Adjust p-values so that any wrong rejection in the whole family is as rare as the level says (Holm).

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


def holm_by_name(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust the p-values of a family of comparisons, each of which has a name, by `holm`.

    A comparison whose p-value is NaN was not made: it stays NaN and does not count in the family.

    >>> holm_by_name({"a": 0.01, "b": math.nan, "c": 0.04})
    {'a': 0.02, 'b': nan, 'c': 0.04}
    """
    made = [name for name, p_value in p_values.items() if not math.isnan(p_value)]
    adjusted_K = holm([p_values[name] for name in made])
    return {**p_values, **dict(zip(made, adjusted_K.tolist(), strict=True))}


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level {level} is not between 0 and 1; 0.95 gives 95 % intervals")


@functools.lru_cache(maxsize=2)
def _times_drawn(images: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """Return how often each bootstrap sample holds each image; read-only, 81 MB for 2000 samples of 40,504 images."""
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
    """This is the images' part of a row's uncertainty: the mean influence, its share that all seeds have, its error."""

    mean_N: NDArray[np.float64]
    shared: float
    error: float


def _intervals_and_draws(
    rows: Sequence[Measured], level: float, resamples: int, seed: int, spreads: Sequence[Spread | None]
) -> list[tuple[Interval, NDArray[np.float64], float]]:
    """Return each row's interval, the images' part of each resample, and the degrees of freedom of the seeds' part."""
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
    """Return the share, in [0, 1] and of a standard deviation, of the mean influence that all seeds have in common.

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
    """Return Student's t at evenly spaced probabilities, shuffled: heavy tails without the noise of drawing them."""
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
