"""Evaluates scores against complete labels: mAP, and OP OR OF1 CP CR CF1 over all and over three labels an image.

Every value is a fraction in [0, 1]. Entries labelled UNKNOWN are not evaluated: they are no right and no wrong
prediction, hold no rank in their category and take no place among an image's three highest.

Ties are ordered, so equal scores always give equal metrics: within a category the earlier row ranks first, within an
image the earlier category. A method that ties everything is therefore scored by the order of the rows, not at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.utils.errors import UserError

Scores = NDArray[np.floating]
PER_IMAGE = 3
"""This is the number of labels that an image may be given for the metrics that end in ``_top3``."""

REPORTED = ("mAP", "OF1", "CF1")
"""These are the metrics that papers print: tables average these, and comparisons have the influences of images on
these.
"""
THRESHOLDED = ("OP", "OR", "OF1", "CP", "CR", "CF1")
"""The metrics that depend on which labels are predicted."""
TOP = tuple(f"{name}_top{PER_IMAGE}" for name in THRESHOLDED)
"""These are the same with at most `PER_IMAGE` predicted labels an image."""
SHARES = ("mAP", *THRESHOLDED, *TOP, "average_precision")
"""Every metric of `evaluate` that is one fraction in [0, 1]."""


def evaluate(scores_NC: ArrayLike, labels_NC: ArrayLike, *, surely_logits: bool = False) -> dict[str, Any]:
    """Compute every metric of the benchmark in float64 (scores are only compared, in the precision they come in).

    Args:
        scores_NC: logits, not probabilities; a label is predicted where its logit is at least 0.
        labels_NC: PRESENT, ABSENT, or UNKNOWN for an entry that is not evaluated.
        surely_logits: accept scores that all lie in [0, 1]; else they are taken for probabilities and refused.

    Returns:
        ``mAP``: the mean of ``AP_C``.
        ``AP_C``: average precision per category, interpolated at all points: the precision at a rank is the best one
        at that rank or later. NaN for a category without a PRESENT label.
        ``average_precision``: the same mean without interpolation, as scikit-learn has it.
        ``OP OR OF1``: precision, recall and their harmonic mean, counted over all entries together.
        ``CP CR CF1``: means over categories of precision and of recall, and the harmonic mean of these two means.
        ``OP_top3`` and so on: as above, with at most the three highest logits of each image predicted.
        ``categories_without_positives``: how many categories all means over categories leave out.

        A ratio of 0 to 0 (the precision of a category that is never predicted, F1 of nothing right) counts as 0.

    Raises:
        UserError: the shapes differ, a score is not finite, the scores look like probabilities (unless
            `surely_logits`), the labels are not the three states (or are 0 and 1 only), or nothing is PRESENT.

    >>> scores_NC = [[2.0, -1.0], [1.0, 3.0], [-1.0, -2.0]]
    >>> result = evaluate(scores_NC, [[ABSENT, PRESENT], [PRESENT, PRESENT], [PRESENT, ABSENT]])
    >>> result["AP_C"].round(3), round(result["mAP"], 3), result["OP"], result["CR"]
    (array([0.667, 1.   ]), 0.833, 0.6666666666666666, 0.5)
    """
    scores_NC, labels_NC = _arrays(scores_NC, labels_NC)
    _check(scores_NC, labels_NC, surely_logits)
    present_NC = labels_NC == PRESENT
    evaluated_NC = labels_NC != UNKNOWN
    has_positives_C = present_NC.any(axis=0)

    AP_C, plain_C = _both_precisions(scores_NC, present_NC, evaluated_NC)
    predicted_NC = (scores_NC >= 0) & evaluated_NC
    highest_NC = _highest(scores_NC, evaluated_NC, PER_IMAGE)
    return {
        "mAP": mean_average_precision(AP_C),
        "average_precision": mean_average_precision(plain_C),
        **threshold_metrics(predicted_NC, present_NC, has_positives_C),
        **{
            f"{name}_top{PER_IMAGE}": value
            for name, value in threshold_metrics(predicted_NC & highest_NC, present_NC, has_positives_C).items()
        },
        "AP_C": AP_C,
        "categories_without_positives": int((~has_positives_C).sum()),
    }


def average_precisions(scores_NC: ArrayLike, labels_NC: ArrayLike) -> NDArray[np.float64]:
    """Compute ``AP_C`` of `evaluate` alone: average precision per category, NaN for one without a PRESENT label.

    Only the order of the scores counts, so probabilities do as well as logits.

    Raises:
        UserError: as `evaluate` does, but for scores that look like probabilities.

    >>> average_precisions([[0.9, 0.1], [0.8, 0.7], [0.3, 0.2]], [[ABSENT, PRESENT], [PRESENT, PRESENT], [PRESENT] * 2])
    array([0.66666667, 1.        ])
    """
    scores_NC, labels_NC = _arrays(scores_NC, labels_NC)
    _check(scores_NC, labels_NC, surely_logits=True)
    return _both_precisions(scores_NC, labels_NC == PRESENT, labels_NC != UNKNOWN)[0]


def mean_average_precision(AP_C: NDArray[np.float64]) -> float:
    """Average over the categories that have a number; NaN where none has.

    >>> mean_average_precision(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    defined_C = AP_C[~np.isnan(AP_C)]
    # Added one after another: numpy's sum of a flat array adds in pairs, which gives other last digits.
    return float(np.cumsum(defined_C)[-1] / len(defined_C)) if len(defined_C) else float("nan")


def _arrays(scores_NC: ArrayLike, labels_NC: ArrayLike) -> tuple[Scores, NDArray]:
    """Return scores as float32 where that holds them exactly, which sorts twice as fast, else as float64; and
    labels.
    """
    scores_NC = np.asarray(scores_NC)
    exact = np.float32 if scores_NC.dtype in (np.float16, np.float32) else np.float64
    return scores_NC.astype(exact, copy=False), np.asarray(labels_NC)


def _check(scores_NC: Scores, labels_NC: NDArray, surely_logits: bool) -> None:
    if scores_NC.ndim != 2 or scores_NC.shape != labels_NC.shape:
        raise UserError(
            f"scores {scores_NC.shape} and labels {labels_NC.shape} must both be images x categories, of one shape"
        )
    if not scores_NC.size:
        raise UserError(f"there is nothing to evaluate: scores and labels are {scores_NC.shape}")
    if not np.isfinite(scores_NC).all():
        wrong = int((~np.isfinite(scores_NC)).sum())
        raise UserError(f"{wrong} of {scores_NC.size} scores are NaN or infinite; metrics need finite logits")
    # Only zeros are what a classifier initialised with zeros says, not probabilities.
    if not surely_logits and scores_NC.min() >= 0 and 0 < scores_NC.max() <= 1:
        raise UserError("all scores lie in [0, 1], as probabilities do; give logits (before the sigmoid)")
    unknown_NC, absent_NC, present_NC = (labels_NC == state for state in (UNKNOWN, ABSENT, PRESENT))
    if not (unknown_NC | absent_NC | present_NC).all():
        raise UserError(f"labels must be {PRESENT} (present), {ABSENT} (absent) or {UNKNOWN} (unknown), nothing else")
    if unknown_NC.any() and not absent_NC.any():
        raise UserError(
            f"no label is {ABSENT}: here {UNKNOWN} means unknown (not evaluated) and absent is {ABSENT}; "
            "turn labels of 0 and 1 into these with 2 * labels - 1"
        )
    if not present_NC.any():
        raise UserError("no label is present, so no metric is defined")


def _both_precisions(
    scores_NC: Scores, present_NC: NDArray[np.bool_], evaluated_NC: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision per category with and without interpolation."""
    columns = zip(*map(_by_category, (scores_NC, present_NC, evaluated_NC)), strict=True)
    pairs = [_average_precisions(scores_N[known_N], present_N[known_N]) for scores_N, present_N, known_N in columns]
    interpolated_C, plain_C = np.array(pairs).T
    return np.ascontiguousarray(interpolated_C), plain_C


def _by_category(matrix_NC: NDArray) -> NDArray:
    """Return the transpose, laid out so that a category's entries are neighbours in memory: sorting them is faster."""
    return np.ascontiguousarray(matrix_NC.T)


def _average_precisions(scores_N: Scores, present_N: NDArray[np.bool_]) -> tuple[float, float]:
    """Return one category's average precision with and without interpolation; NaN where nothing is present."""
    if not present_N.any():
        return np.nan, np.nan
    ranks_P = np.flatnonzero(_ranked(scores_N, present_N)) + 1
    # Precision falls from one positive to the next, so the best one at a rank or later stands at a positive.
    precisions_P = np.arange(1, len(ranks_P) + 1) / ranks_P
    return np.maximum.accumulate(precisions_P[::-1]).mean(), precisions_P.mean()


def _ranked(scores_N: Scores, present_N: NDArray[np.bool_]) -> NDArray:
    """Return which of the entries are present (else zero), the highest score first, of equal ones the earlier row.

    A float32 score, its row and whether it is present fit into one int64, and plain integers sort twice as fast as an
    argsort does: the bits of floats are ordered as the floats are, those of negative ones the other way around.
    """
    if scores_N.dtype == np.float64:
        return present_N[np.argsort(-scores_N, kind="stable")]
    bits_N = (0 - scores_N).view(np.int32)  # 0 - x, since -x would tell 0.0 from -0.0
    keys_N = (bits_N ^ (bits_N >> 31 & 0x7FFFFFFF)).astype(np.int64)
    keys_N <<= 32
    keys_N |= np.arange(0, 2 * len(keys_N), 2)
    keys_N |= present_N
    keys_N.sort()
    return keys_N & 1


def _highest(scores_NC: Scores, evaluated_NC: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return where an image's `count` highest evaluated scores stand, or all where it has fewer.

    Of equal scores the first one counts as higher.
    """
    left_NC = np.where(evaluated_NC, scores_NC, -np.inf)
    rows_N = np.arange(len(left_NC))
    highest_NC = np.zeros(left_NC.shape, dtype=bool)
    for _ in range(count):
        best_N = left_NC.argmax(axis=1)
        highest_NC[rows_N, best_N] = True
        left_NC[rows_N, best_N] = -np.inf
    return highest_NC & evaluated_NC


def threshold_metrics(
    predicted_NC: NDArray[np.bool_], present_NC: NDArray[np.bool_], has_positives_C: NDArray[np.bool_]
) -> dict[str, float]:
    """Compute `THRESHOLDED` of predictions, see `evaluate`.

    Args:
        predicted_NC, present_NC: which entries are predicted, and which are PRESENT; both False where not evaluated.
        has_positives_C: the categories that means over categories are over.
    """
    num_correct_C = (predicted_NC & present_NC).sum(axis=0)
    num_predicted_C = predicted_NC.sum(axis=0)
    num_present_C = present_NC.sum(axis=0)
    overall_precision = _ratio(num_correct_C.sum(), num_predicted_C.sum())
    overall_recall = _ratio(num_correct_C.sum(), num_present_C.sum())
    category_precision = _ratio(num_correct_C, num_predicted_C)[has_positives_C].mean()
    category_recall = _ratio(num_correct_C, num_present_C)[has_positives_C].mean()
    return {
        "OP": float(overall_precision),
        "OR": float(overall_recall),
        "OF1": _harmonic_mean(overall_precision, overall_recall),
        "CP": float(category_precision),
        "CR": float(category_recall),
        "CF1": _harmonic_mean(category_precision, category_recall),
    }


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """part / whole in float64, 0 where the whole (and so the part) is 0."""
    return part / np.maximum(whole, 1)


def _harmonic_mean(precision: NDArray, recall: NDArray) -> float:
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
