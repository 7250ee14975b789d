"""Chooses one threshold a category on scores, and evaluates what is predicted with it.

A label is predicted where its score is at least its category's threshold. At the usual threshold, logit 0, F1 says as
much about where a method's scores lie as about how well it orders images; a threshold chosen on known labels tells the
two apart. Entries labelled UNKNOWN are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.evaluation.metrics import Scores, threshold_metrics

USUAL = 0.0
"""The threshold on logits where nothing is chosen."""

ORACLE = ("OF1", "CF1")
"""The metrics that `oracle` gives."""

MOST_SWEEPS = 100
"""Over the categories, while CF1 still rises; it stops after a handful."""


def chosen(scores_NC: Scores, labels_NC: NDArray[np.int8]) -> NDArray[np.float64]:
    """Choose the threshold of each category with the highest F1 of that category on the labels that are known.

    Candidates are the scores of known entries; of several with the same F1 the highest is taken. A category without a
    PRESENT or without an ABSENT label has nothing to choose by and keeps `USUAL`.

    Returns:
        Thresholds [C].

    >>> chosen(np.array([[-1.0], [-2.0], [-3.0]]), np.array([[PRESENT], [PRESENT], [ABSENT]]))
    array([-2.])
    """
    thresholds_C = np.full(labels_NC.shape[1], USUAL)
    for place, curve in enumerate(_curves(scores_NC, labels_NC)):
        if curve.present and (labels_NC[:, place] == ABSENT).any():
            thresholds_C[place] = curve.thresholds_K[np.argmax(curve.f1_K)]
    return thresholds_C


def evaluate(scores_NC: Scores, labels_NC: NDArray[np.int8], thresholds_C: NDArray[np.float64]) -> dict[str, float]:
    """Compute ``OP OR OF1 CP CR CF1`` with one threshold a category; see `metrics.evaluate`.

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
    with_positives = [place for place, curve in enumerate(curves) if curve.present]
    shared = [np.full(len(curves), USUAL), chosen(scores_NC, labels_NC), *tried]
    starts = [[curves[place].at(thresholds_C[place]) for place in with_positives] for thresholds_C in shared]
    counted = [curves[place] for place in with_positives]
    return {"OF1": _highest_OF1(curves), "CF1": max(_risen_CF1(counted, start) for start in starts)}


class _Curve(NamedTuple):
    """What each threshold of one category predicts, from none of its entries to all.

    Attributes:
        thresholds_K: falling; the first, infinity, predicts nothing.
        correct_K, predicted_K: how many PRESENT entries, and how many entries, are predicted.
        present: how many entries are PRESENT.
    """

    thresholds_K: NDArray[np.float64]
    correct_K: NDArray[np.int64]
    predicted_K: NDArray[np.int64]
    present: int

    @property
    def f1_K(self) -> NDArray[np.float64]:
        return 2 * self.correct_K / np.maximum(self.predicted_K + self.present, 1)

    @property
    def precisions_K(self) -> NDArray[np.float64]:
        return self.correct_K / np.maximum(self.predicted_K, 1)

    @property
    def recalls_K(self) -> NDArray[np.float64]:
        return self.correct_K / max(self.present, 1)

    def at(self, threshold: float) -> int:
        """The place of the threshold that predicts what this one does."""
        return int(np.searchsorted(-self.thresholds_K, -threshold, side="right")) - 1


def _curves(scores_NC: Scores, labels_NC: NDArray[np.int8]) -> list[_Curve]:
    return [_curve(scores_N[labels_N != UNKNOWN], labels_N[labels_N != UNKNOWN] == PRESENT)
            for scores_N, labels_N in zip(scores_NC.T, labels_NC.T, strict=True)]  # fmt: skip


def _curve(scores_N: Scores, present_N: NDArray[np.bool_]) -> _Curve:
    order_N = np.argsort(-scores_N, kind="stable")
    falling_N = scores_N[order_N].astype(np.float64)
    last_K = np.flatnonzero(np.append(falling_N[1:] != falling_N[:-1], True)) if len(falling_N) else order_N
    correct_N = np.cumsum(present_N[order_N])
    return _Curve(
        np.concatenate([[np.inf], falling_N[last_K]]),
        np.concatenate([[0], correct_N[last_K]]),
        np.concatenate([[0], last_K + 1]),
        int(present_N.sum()),
    )


def _highest_OF1(curves: Sequence[_Curve]) -> float:
    """Dinkelbach's method: with the best ratio so far as a price, each category chooses for itself."""
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


def _risen_CF1(curves: Sequence[_Curve], start: Sequence[int]) -> float:
    """CF1 after each category in turn took its best threshold, until none has a better one."""
    places = list(start)
    precisions = np.array([curve.precisions_K[place] for curve, place in zip(curves, places, strict=True)])
    recalls = np.array([curve.recalls_K[place] for curve, place in zip(curves, places, strict=True)])
    highest = float(_harmonic(np.atleast_1d(precisions.mean()), np.atleast_1d(recalls.mean()))[0])
    for _ in range(MOST_SWEEPS):
        before = highest
        for number, curve in enumerate(curves):
            mean_precision_K = (precisions.sum() - precisions[number] + curve.precisions_K) / len(curves)
            mean_recall_K = (recalls.sum() - recalls[number] + curve.recalls_K) / len(curves)
            f1_K = _harmonic(mean_precision_K, mean_recall_K)
            best = int(np.argmax(f1_K))
            if f1_K[best] > highest:
                highest = float(f1_K[best])
                precisions[number], recalls[number] = curve.precisions_K[best], curve.recalls_K[best]
        if highest - before < 1e-12:  # sums of floats differ in their last digits
            break
    return highest


def _harmonic(a_K: NDArray[np.float64], b_K: NDArray[np.float64]) -> NDArray[np.float64]:
    total_K = a_K + b_K
    return np.divide(2 * a_K * b_K, total_K, out=np.zeros_like(total_K), where=total_K > 0)
