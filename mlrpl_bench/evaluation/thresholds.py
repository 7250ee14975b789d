"""Chooses one threshold a category on scores, and evaluates what is predicted with it.

A label is predicted where its score is at least its category's threshold. At the usual threshold, logit 0, F1 says as
much about where a method's scores lie as about how well it orders images; a threshold chosen on known labels tells the
two apart. Entries labelled UNKNOWN are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.evaluation.metrics import Scores, threshold_metrics

USUAL = 0.0
"""The threshold on logits where nothing is chosen."""

ORACLE = ("OF1", "CF1")
"""These are the metrics that `oracle` gives."""

MOST_SWEEPS = 100
"""At most this many sweeps go over the categories, while CF1 still rises; it stops after a handful."""


def chosen(scores_NC: Scores, labels_NC: NDArray[np.int8]) -> NDArray[np.float64]:
    """Choose the threshold of each category with the highest F1 of that category on the labels that are known.

    Candidates are the scores of known entries; of several with the same F1 the highest is taken. A category without a
    PRESENT or without an ABSENT label has nothing to choose by and keeps `USUAL`.

    Returns:
        Thresholds [C].

    >>> from mlrpl_bench.data.protocol import ABSENT
    >>> chosen(np.array([[-1.0], [-2.0], [-3.0]]), np.array([[PRESENT], [PRESENT], [ABSENT]]))
    array([-2.])
    """
    return np.array([curve.best_threshold() for curve in _curves(scores_NC, labels_NC)])


def evaluate(scores_NC: Scores, labels_NC: NDArray[np.int8], thresholds_C: NDArray[np.float64]) -> dict[str, float]:
    """Compute ``OP OR OF1 CP CR CF1`` with one threshold a category; see `metrics.evaluate`.

    >>> from mlrpl_bench.data.protocol import ABSENT
    >>> scores_NC, labels_NC = np.array([[-1.0], [-3.0]]), np.array([[PRESENT], [ABSENT]])
    >>> evaluate(scores_NC, labels_NC, np.array([0.0]))["OF1"], evaluate(scores_NC, labels_NC, np.array([-2.0]))["OF1"]
    (0.0, 1.0)
    """
    present_NC = labels_NC == PRESENT
    predicted_NC = (scores_NC >= thresholds_C) & (labels_NC != UNKNOWN)
    return threshold_metrics(predicted_NC, present_NC, present_NC.any(axis=0))


def oracle(
    scores_NC: Scores, labels_NC: NDArray[np.int8], tried: Sequence[NDArray[np.float64]] = ()
) -> dict[str, float]:
    """Compute the OF1 and the CF1 of thresholds that were chosen on the very labels that are evaluated.

    ``OF1`` is the highest that any thresholds, one a category, can reach. ``CF1`` is one that no change of a single
    category's threshold raises, and no lower than with `USUAL`, with `chosen` on these labels, or with those tried.

    Args:
        tried: thresholds [C] from elsewhere.
    """
    curves = _curves(scores_NC, labels_NC)
    own_C = np.array([curve.best_threshold() for curve in curves])
    with_positives = [place for place, curve in enumerate(curves) if curve.present]
    counted = [curves[place] for place in with_positives]
    starts = [thresholds_C[with_positives] for thresholds_C in (np.full(len(curves), USUAL), own_C, *tried)]
    return {"OF1": _highest_OF1(curves), "CF1": max(_risen_CF1(counted, start_C) for start_C in starts)}


class _Curve(NamedTuple):
    """This holds what the thresholds of one category predict.

    A threshold between two PRESENT scores predicts more entries and none of them rightly, so it is left out.

    Attributes:
        evaluated_N, present_P: the scores of all evaluated entries, and of the PRESENT ones, rising.
        thresholds_K: falling; the first, infinity, predicts nothing.
        correct_K, predicted_K: how many PRESENT entries, and how many entries, are predicted.
    """

    evaluated_N: Scores
    present_P: Scores
    thresholds_K: NDArray[np.float64]
    correct_K: NDArray[np.int64]
    predicted_K: NDArray[np.int64]

    @property
    def present(self) -> int:
        return len(self.present_P)

    def best_threshold(self) -> float:
        """Return the best threshold, see `chosen`."""
        if not 0 < self.present < len(self.evaluated_N):
            return USUAL
        return float(self.thresholds_K[np.argmax(2 * self.correct_K / (self.predicted_K + self.present))])

    def precisions_and_recalls(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute precision and recall at each threshold."""
        return self.correct_K / np.maximum(self.predicted_K, 1), self.correct_K / self.present

    def precision_and_recall_at(self, threshold: float) -> tuple[float, float]:
        """Compute precision and recall at any threshold."""
        correct, predicted = _at_least(self.present_P, threshold), _at_least(self.evaluated_N, threshold)
        return float(correct / max(predicted, 1)), float(correct / self.present)


def _curves(scores_NC: Scores, labels_NC: NDArray[np.int8]) -> list[_Curve]:
    columns = zip(np.ascontiguousarray(scores_NC.T), np.ascontiguousarray(labels_NC.T), strict=True)
    return [_curve(scores_N, labels_N) for scores_N, labels_N in columns]


def _curve(scores_N: Scores, labels_N: NDArray[np.int8]) -> _Curve:
    evaluated_N, present_P = np.sort(scores_N[labels_N != UNKNOWN]), np.sort(scores_N[labels_N == PRESENT])
    thresholds_K = np.concatenate([[np.inf], np.unique(present_P)[::-1]])  # float64, which holds the scores exactly
    correct_K, predicted_K = _at_least(present_P, thresholds_K), _at_least(evaluated_N, thresholds_K)
    return _Curve(evaluated_N, present_P, thresholds_K, correct_K, predicted_K)


def _at_least(rising_N: Scores, threshold: Any) -> Any:
    """Return how many of rising scores are at least a threshold, for one or for many."""
    return len(rising_N) - np.searchsorted(rising_N, threshold, side="left")


def _highest_OF1(curves: Sequence[_Curve]) -> float:
    """Use Dinkelbach's method: with the best ratio so far as a price, each category chooses for itself."""
    present, highest = sum(curve.present for curve in curves), 0.0
    while True:
        correct = predicted = 0
        for curve in curves:
            best = int(np.argmax(2 * curve.correct_K - highest * curve.predicted_K))
            correct += int(curve.correct_K[best])
            predicted += int(curve.predicted_K[best])
        found = 2 * correct / max(predicted + present, 1)
        if found <= highest:
            return highest
        highest = found


def _risen_CF1(curves: Sequence[_Curve], start_C: NDArray[np.float64]) -> float:
    """Return CF1 after each category in turn took its best threshold, until none has a better one."""
    choices = [curve.precisions_and_recalls() for curve in curves]
    at_start = [curve.precision_and_recall_at(threshold) for curve, threshold in zip(curves, start_C, strict=True)]
    means_2C = np.array(at_start).T / len(curves)  # what each category adds to the means
    highest = float(_harmonic(*means_2C.sum(axis=1)))
    for _ in range(MOST_SWEEPS):
        before = highest
        for place, (precisions_K, recalls_K) in enumerate(choices):
            others_2 = means_2C.sum(axis=1) - means_2C[:, place]
            precision_K, recall_K = precisions_K / len(curves), recalls_K / len(curves)
            f1_K = _harmonic(others_2[0] + precision_K, others_2[1] + recall_K)
            best = int(np.argmax(f1_K))
            if f1_K[best] > highest:
                highest = float(f1_K[best])
                means_2C[:, place] = precision_K[best], recall_K[best]
        if highest - before < 1e-12:  # sums of floats differ in their last digits
            break
    return highest


def _harmonic(a: Any, b: Any) -> Any:
    """Return the harmonic mean, 0 where both are 0."""
    return 2 * a * b / np.maximum(a + b, 1e-300)
