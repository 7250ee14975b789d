"""Chooses which unknown entries are sure enough to be set, and bounds how many of them are wrong.

The promise: of the entries that are set to a state, at least the share `precision` is right. It is made and broken in
at most 5 of 100 cases (`CONFIDENCE`), on one assumption: that within a category the unknown entries and the held-out
ones are alike (labels are missing at random). Then those above a threshold are one lot of which the held-out ones are a
random sample (of several categories together once `shared_rows` has seen to it), and the number of wrong ones in the
rest is bounded by the hypergeometric law, exactly, for lots of any size. (Of very many unknown entries this is the
bound of Clopper and Pearson.)

A bound holds for a threshold that was not chosen by the labels that it is computed from. Therefore half of the held-out
labels calibrate and propose two thresholds, and the other half tries these: the loose one first, and if it fails the
strict one. As one of the two is kept, they divide the risk. The loose one has most of it, since with few labels it is
the only one that can hold; with many labels the strict one, tried at a small risk, costs little.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom

CONFIDENCE = 0.95
"""The chance, at least, that a promise is kept or not made."""


class Trial(NamedTuple):
    """This says how a threshold is proposed and tried.

    Attributes:
        chance: it is the loosest that, by the calibrating half, will hold with this chance.
        risk: the chance that its bound is wrong.
    """

    chance: float
    risk: float


LOOSE, STRICT = Trial(0.8, 0.04), Trial(0.97, 0.01)
"""The two risks add up to that of the promise."""

GROWTH = 1.15
"""Each threshold that is looked at lets in so many times as many calibrating entries as the one before."""


@dataclass(frozen=True)
class Choice:
    """This says which unknown entries of a group are set to one state.

    Attributes:
        threshold: entries whose sureness (the probability of the state) is at least this are set; infinite for none.
        set: how many unknown entries these are.
        checked: held-out entries of the half that tries the thresholds, above the threshold.
        wrong: those of them that are of the other state.
        at_most_wrong: of the entries that are set, with `CONFIDENCE`.
        expected_wrong: the same by the probabilities.
        effect: how many of the checked entries told as much as one that was drawn by itself, see `choose`.
    """

    threshold: float = math.inf
    set: int = 0
    checked: int = 0
    wrong: int = 0
    at_most_wrong: int = 0
    expected_wrong: float = 0.0
    effect: float = 1.0


def labels_needed(precision: float) -> int:
    """Return how many labels, none of them wrong, must be above a threshold that is to hold for very many entries.

    >>> labels_needed(0.95), labels_needed(0.99)
    (63, 321)
    """
    return math.ceil(math.log(LOOSE.risk) / math.log(precision))


def most_wrong(checked: int, wrong: int, others: int, risk: float) -> int:
    """Bound the number of wrong entries among others, from a random sample of the same lot.

    Args:
        checked, wrong: size of the sample, and how many of it are wrong.
        others: how many entries are in the lot besides.
        risk: the chance that there are more than the bound.

    >>> most_wrong(checked=100, wrong=0, others=1000, risk=0.05), most_wrong(checked=0, wrong=0, others=7, risk=0.05)
    (30, 7)
    """

    def is_unlikely(more: int) -> bool:
        """Tell whether so few of the sample would be wrong with a chance of at most `risk`, if `more` others were."""
        return bool(hypergeom.cdf(wrong, checked + others, wrong + more, checked) <= risk)

    return bisect_left(range(others + 1), True, key=is_unlikely) - 1


def may_be_wrong(checked: int, others: int, precision: float, risk: float) -> int:
    """Return how many of the sample may be wrong for the promise about the others to hold; -1 where none may and that
    fails.

    Args:
        checked, others: as in `most_wrong`.
        precision: the share of the others that must be right.
    """
    allowed = allowed_wrong(others, precision)

    def is_too_many(wrong: int) -> bool:
        return bool(hypergeom.cdf(wrong, checked + others, wrong + allowed + 1, checked) > risk)

    return bisect_left(range(checked + 1), True, key=is_too_many) - 1


def allowed_wrong(others: int, precision: float) -> int:
    """Return how many of this many entries may be wrong at a precision."""
    return math.floor((1 - precision) * others + 1e-9)


def choose(
    calibrating_S: NDArray[np.float64],
    choosing_S: NDArray[np.float64],
    is_right_S: NDArray[np.bool_],
    unknown_S: NDArray[np.float64],
    precision: float,
    effect: float = 1.0,
) -> Choice:
    """Choose the looser of two proposed thresholds that the other half of the held-out labels confirms.

    Args:
        calibrating_S: sureness of the held-out entries that calibrated.
        choosing_S, is_right_S: sureness of the other held-out entries, and whether they are of the state.
        unknown_S: sureness of the unknown entries.
        precision: the promised share of right ones, above 0.5 and below 1.
        effect: how many of the held-out entries tell as much as one that was drawn by itself, at least 1; where they
            come by whole images it is more (`shared_rows.design_effect`).
    """
    falling_S, rising_unknown_S = np.sort(calibrating_S)[::-1], np.sort(unknown_S)
    for trial in (LOOSE, STRICT):
        threshold = _proposed(falling_S, rising_unknown_S, precision, trial, effect)
        above_S, set_S = choosing_S >= threshold, unknown_S >= threshold
        checked, wrong, others = int(above_S.sum()), int((above_S & ~is_right_S).sum()), int(set_S.sum())
        counts = math.floor(checked / effect), math.ceil(wrong / effect)
        at_most_wrong = most_wrong(*counts, others, trial.risk)
        if others and at_most_wrong <= allowed_wrong(others, precision):
            expected = float((1 - unknown_S[set_S]).sum())
            return Choice(threshold, others, checked, wrong, at_most_wrong, expected, effect)
    return Choice()


def _proposed(
    falling_S: NDArray[np.float64],
    rising_unknown_S: NDArray[np.float64],
    precision: float,
    trial: Trial,
    effect: float = 1.0,
) -> float:
    """Return the threshold to try, or infinity; the labels that will try it have no part in it.

    An entry is set to the likelier state only: no threshold is as low as a half.
    """
    wrong_S = np.cumsum(1 - falling_S)
    likely, likeliest, best = math.inf, math.inf, 0.0
    entries = 1
    while entries <= len(falling_S) and (threshold := float(falling_S[entries - 1])) > 0.5:
        above = int(np.searchsorted(-falling_S, -threshold, side="right"))  # with all that are equally sure
        others = len(rising_unknown_S) - int(np.searchsorted(rising_unknown_S, threshold, side="left"))
        sample = math.floor(above / effect)
        limit = may_be_wrong(sample, others, precision, trial.risk) if others else -1
        chance = float(binom.cdf(limit, sample, wrong_S[above - 1] / above)) if limit >= 0 else 0.0
        if chance >= trial.chance:
            likely = threshold  # they fall, so the last one is the loosest
        if chance > best:
            likeliest, best = threshold, chance
        entries = max(above + 1, math.ceil(above * GROWTH))
    return likely if likely < math.inf else likeliest
