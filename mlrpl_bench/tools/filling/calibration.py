"""Turns a method's scores into probabilities, learnt from held-out labels: those that were given and hidden from it.

A category has a calibration of its own where it has enough labels; the others share one, fitted to their labels, or to
those of all categories where theirs are too few. A category without any held-out label has none. Which kind is fitted
depends on the number of labels alone:

- Logistic, the logistic curve of a score (Platt 1999, with his smoothed targets): from `FEW` labels of the rarer state.
  In simulations with categories whose curves differ as those of trained methods do, the category's own curve was as
  near to the truth as the shared one at about ten labels of the rarer state, and nearer from there on.
- Isotonic, any rising function (Zadrozny and Elkan 2002): from `MANY` labels of which `SOME` are of the rarer state. In
  the same simulations it lost to the logistic curve below 1,000 labels, even where the truth was no logistic curve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT

FEW = 10
"""Labels of the rarer state that a calibration needs; it has two parameters."""
MANY, SOME = 1000, 50
"""Labels, and those of the rarer state among them, from which the calibration is isotonic."""

Curve = Callable[[NDArray[np.floating]], NDArray[np.float64]]
"""A curve turns scores into probabilities of being present."""


@dataclass(frozen=True)
class Calibration:
    """This says how the scores of a category became probabilities.

    Attributes:
        kind: ``logistic``, ``isotonic``, or empty where there is none.
        shared: empty for one of its own, ``few`` for one fitted to the categories with few labels, ``all`` to all.
        labels: how many labels it was fitted to.
        present: how many of them are present.
    """

    kind: str
    shared: str
    labels: int
    present: int

    @property
    def to_text(self) -> str:
        """Return text such as ``logistic, shared, 240 labels``."""
        if not self.kind:
            return "no label"
        of = {"": [], "few": ["shared"], "all": ["shared by all"]}[self.shared]
        return ", ".join([self.kind, *of, f"{self.labels:,} labels"])


NONE = Calibration("", "", 0, 0)


def calibrate(
    logits_NC: NDArray[np.floating], labels_NC: NDArray[np.int8], calibrating_NC: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], list[Calibration]]:
    """Fit the calibrations, and give the probability of every entry.

    Args:
        logits_NC: a method's scores; any finite numbers that rise with the probability.
        labels_NC: PRESENT or ABSENT wherever `calibrating_NC`.
        calibrating_NC: which labels it is fitted to.

    Returns:
        float32 [N, C], NaN for a category without a calibration; and the calibration of each category.
    """
    present_NC = labels_NC == PRESENT
    labels_C = calibrating_NC.sum(axis=0)
    present_C = (calibrating_NC & present_NC).sum(axis=0)
    is_own_C = np.minimum(present_C, labels_C - present_C) >= FEW
    probabilities_NC = np.full(logits_NC.shape, np.nan, dtype=np.float32)
    found = [NONE] * len(labels_C)

    def use(columns: NDArray[np.intp], of: NDArray[np.intp], shared: str) -> bool:
        """Give `columns` the calibration that is fitted to the labels of the columns `of`, if these are enough."""
        labels, present = int(labels_C[of].sum()), int(present_C[of].sum())
        if not (kind := kind_for(labels, present)):
            return False
        chosen = calibrating_NC[:, of]
        curve = fit(kind, logits_NC[:, of][chosen], present_NC[:, of][chosen])
        for column in columns.tolist():  # one at a time: a copy of all scores may be large
            probabilities_NC[:, column] = curve(logits_NC[:, column])
            found[column] = Calibration(kind, shared, labels, present)
        return True

    for column in np.flatnonzero(is_own_C):
        use(np.array([column]), np.array([column]), "")
    few = np.flatnonzero(~is_own_C & (labels_C > 0))
    if len(few) and not use(few, few, "few"):
        use(few, np.arange(len(labels_C)), "all")
    return probabilities_NC, found


def kind_for(labels: int, present: int) -> str:
    """Return the calibration that this many labels are enough for: ``isotonic``, ``logistic``, or empty for none."""
    rarer = min(present, labels - present)
    if labels >= MANY and rarer >= SOME:
        return "isotonic"
    return "logistic" if rarer >= FEW else ""


def fit(kind: str, logits_S: NDArray[np.floating], is_present_S: NDArray[np.bool_]) -> Curve:
    """Fit one calibration; of S labels no probability is below 1 / (S + 2), or as near to 1: they do not show more.

    Args:
        kind: ``isotonic`` or ``logistic``.
        logits_S, is_present_S: scores, and whether each entry is present.
    """
    make, lowest = _isotonic if kind == "isotonic" else _logistic, 1 / (len(logits_S) + 2)
    curve = make(logits_S.astype(np.float64), is_present_S)
    return lambda logits: np.clip(curve(np.asarray(logits, dtype=np.float64)), lowest, 1 - lowest)


def _isotonic(logits_S: NDArray[np.float64], is_present_S: NDArray[np.bool_]) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(out_of_bounds="clip").fit(logits_S, is_present_S).predict


def _logistic(logits_S: NDArray[np.float64], is_present_S: NDArray[np.bool_]) -> Curve:
    """Fit Platt's curve: a present label counts as (p + 1) / (p + 2) of one, an absent one as 1 / (a + 2).

    Scores that do not rise with the share of present labels say nothing; then every entry gets that share.
    """
    from sklearn.linear_model import LogisticRegression

    present, absent = int(is_present_S.sum()), int((~is_present_S).sum())
    share = (present + 1) / (present + absent + 2)
    middle, spread = float(logits_S.mean()), float(logits_S.std())
    if spread == 0:
        return lambda logits: np.full(len(logits), share)
    weights_S = np.where(is_present_S, (present + 1) / (present + 2), 1 / (absent + 2))
    scaled_S1 = ((logits_S - middle) / spread)[:, None]
    model = LogisticRegression(C=1e6, max_iter=1000)  # in effect without a penalty
    model.fit(
        np.concatenate([scaled_S1, scaled_S1]),
        np.repeat([PRESENT, ABSENT], len(scaled_S1)),
        sample_weight=np.concatenate([weights_S, 1 - weights_S]),
    )
    if model.coef_[0, 0] <= 0:
        return lambda logits: np.full(len(logits), share)
    return lambda logits: model.predict_proba(((logits - middle) / spread)[:, None])[:, 1]
