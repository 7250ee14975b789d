"""Computes each image's influence on a metric, the metric's derivative by the image's weight (infinitesimal jackknife).

Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 21.3. Array names end in dimensions: N images, C
categories, P the PRESENT images of one category in rank order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.utils.errors import UserError


def influences(scores_NC: ArrayLike, labels_NC: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Compute each image's influence on mAP, OF1 and CF1, as `metrics.evaluate` defines them.

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

    >>> from mlrpl_bench.data.protocol import ABSENT
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


def category_influences(scores_NC: ArrayLike, labels_NC: ArrayLike) -> NDArray[np.float64]:
    """Compute each image's influence on each category's average precision: ``N * d AP_c / d w_n``; float64 [N, C].

    The mean over the categories that have a PRESENT label is the influence on mAP, see `influences`, whose arguments
    and errors these are. A column is NaN where the category has none, and 0 at images where its label is UNKNOWN.
    """
    scores_NC = np.asarray(scores_NC, dtype=np.float64)
    labels_NC = np.asarray(labels_NC)
    _check_scores(scores_NC, labels_NC)
    found_CN = np.zeros(scores_NC.T.shape)
    for place, (scores_N, labels_N) in enumerate(zip(np.ascontiguousarray(scores_NC.T), labels_NC.T, strict=True)):
        if not (labels_N == PRESENT).any():
            found_CN[place] = np.nan
            continue
        evaluated_N = np.flatnonzero(labels_N != UNKNOWN)
        of_evaluated = _average_precision_influences(scores_N[evaluated_N], labels_N[evaluated_N] == PRESENT)
        found_CN[place, evaluated_N] = len(scores_N) * of_evaluated
    return found_CN.T


def _check_scores(scores_NC: NDArray[np.float64], labels_NC: NDArray) -> None:
    if scores_NC.ndim != 2 or scores_NC.shape != labels_NC.shape or not scores_NC.size:
        raise UserError(
            f"scores {scores_NC.shape} and labels {labels_NC.shape} must both be images x categories, of one shape"
        )
    if not np.isfinite(scores_NC).all():
        raise UserError("a score is NaN or infinite; influences need finite logits")
    if not (labels_NC == PRESENT).any():
        raise UserError("no label is present, so no metric is defined")


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
    """Return d AP / d w_n of one category's interpolated average precision, at weights of 1.

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
    """Return where the highest value at or after each place stands."""
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
    """Return the mean over categories of part / whole (0 where the whole is 0), and each image's influence on it."""
    wholes_C = np.maximum(whole_NC.sum(axis=0), 1)
    ratios_C = part_NC.sum(axis=0) / wholes_C
    influences_N = part_NC @ (1 / wholes_C) - whole_NC @ (ratios_C / wholes_C)
    return float(ratios_C.mean()), influences_N * (len(part_NC) / part_NC.shape[1])
