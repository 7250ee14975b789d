"""This module turns scores, labels and a mask into probabilities and decisions for the labels that nobody gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.filling import shared_rows
from mlrpl_bench.tools.filling.calibration import FEW, Calibration, calibrate
from mlrpl_bench.tools.filling.thresholds import Choice, choose, labels_needed
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import seed_of

STATES = {PRESENT: "present", ABSENT: "absent"}

ENOUGH = 4
"""A category is alone where it has so many times the labels that a threshold needs; with fewer, few would hold."""

UNLIKE, SURELY = 0.1, 0.001
"""Two groups of scores are called unlike from this distance of Kolmogorov and Smirnov on, at this p-value."""


@dataclass(frozen=True)
class Promise:
    """This says which entries are set to one state in a group of categories.

    Attributes:
        columns: the group: one category, or several that have too few labels each.
        state: PRESENT or ABSENT.
        unknown: how many unknown entries the group has.
        choice: which of them are set.
    """

    columns: tuple[int, ...]
    state: int
    unknown: int
    choice: Choice


@dataclass(frozen=True, eq=False)
class Filling:
    """These are probabilities and decisions for the unknown labels of a training split.

    Attributes:
        split: the images and their labels, N x C, as they were given.
        probabilities_NC: float32, of being present; NaN where a label was given, and where none could be calibrated.
        decisions_NC: int8, PRESENT or ABSENT where an entry is sure enough, else UNKNOWN.
        precision: the share of the decisions of each promise that is right.
        calibrations: of each category.
        held_out: of each category the labels that were given and hidden: how many are present, and absent.
        expected: of each category the mean probability of the held-out labels that did not calibrate.
        found: the share of these that is present; NaN where there are none.
        promises: of each group and state.
        unlike: categories whose unknown entries have other scores than the held-out ones.
        uneven: whether categories that share a promise were given unequal shares of their labels, so that some hidden
            ones were left out for it.
    """

    split: Split
    probabilities_NC: NDArray[np.float32]
    decisions_NC: NDArray[np.int8]
    precision: float
    calibrations: Sequence[Calibration]
    held_out: Sequence[tuple[int, int]]
    expected: Sequence[float]
    found: Sequence[float]
    promises: Sequence[Promise]
    unlike: Sequence[str]
    uneven: bool

    @property
    def num_unknown(self) -> int:
        """Return the number of labels that nobody gave."""
        return int((self.split.labels_NC == UNKNOWN).sum())

    def frame(self) -> pd.DataFrame:
        """Return a row for each unknown entry: ``image, category, probability, decision`` (1, 0, or missing)."""
        rows, columns = np.nonzero(self.split.labels_NC == UNKNOWN)
        decided = self.decisions_NC[rows, columns]
        return pd.DataFrame({
            "image": [self.split.ids[row] for row in rows.tolist()],
            "category": np.array(self.split.categories, dtype=object)[columns],
            "probability": self.probabilities_NC[rows, columns].astype(np.float64),
            "decision": pd.array(np.where(decided == UNKNOWN, np.nan, decided == PRESENT), dtype="Int8"),
        })  # fmt: skip


def fill_in(
    split: Split, mask_NC: NDArray[np.bool_], logits_NC: NDArray[np.floating], precision: float, seed: int = 0
) -> Filling:
    """Calibrate a method's scores on the labels that were hidden from it, and decide what is sure enough.

    Args:
        split: what the method was trained on, with the labels that were given.
        mask_NC: which labels it saw.
        logits_NC: its scores for the same images.
        precision: the share of the decisions that is to be right, above 0.5 and below 1.
        seed: draws which half of the images calibrates.

    Raises:
        UserError: there is nothing to fill, no given label was hidden, or too few were.
    """
    labels_NC = split.labels_NC
    unknown_NC = labels_NC == UNKNOWN
    held_out_NC = ~unknown_NC & ~mask_NC
    refuse_nothing_to_fill(split)
    _refuse_none_hidden(held_out_NC)
    calibrates_N1 = _half(len(split), seed)[:, None]
    calibrating_NC, choosing_NC = held_out_NC & calibrates_N1, held_out_NC & ~calibrates_N1
    probabilities_NC, calibrations = calibrate(logits_NC, labels_NC, calibrating_NC)
    if not any(one.kind for one in calibrations):
        raise _too_few(labels_NC, held_out_NC)
    decisions_NC, promises = _decided(probabilities_NC, labels_NC, calibrating_NC, choosing_NC, precision, seed)
    unlike = _unlike(probabilities_NC, held_out_NC, unknown_NC, calibrations)
    return Filling(
        split=split,
        probabilities_NC=np.where(unknown_NC, probabilities_NC, np.float32(np.nan)),
        decisions_NC=decisions_NC,
        precision=precision,
        calibrations=calibrations,
        held_out=[_counts(labels_NC[held_out_NC[:, column], column]) for column in range(labels_NC.shape[1])],
        expected=[_mean(probabilities_NC[choosing_NC[:, c], c]) for c in range(labels_NC.shape[1])],
        found=[_mean(labels_NC[choosing_NC[:, c], c] == PRESENT) for c in range(labels_NC.shape[1])],
        promises=promises,
        unlike=[split.categories[column] for column in unlike],
        uneven=any(_is_uneven(choosing_NC, unknown_NC, promise) for promise in promises if promise.choice.set),
    )


def refuse_nothing_to_fill(split: Split) -> None:
    """Refuse complete labels.

    Raises:
        UserError: no training label is unknown.
    """
    if not (split.labels_NC == UNKNOWN).any():
        raise UserError(
            f"all {split.labels_NC.size:,} training labels were given, so there is nothing to fill; choose a data set "
            "in which labels are missing"
        )


def _refuse_none_hidden(held_out_NC: NDArray[np.bool_]) -> None:
    if not held_out_NC.any():
        raise UserError(
            "the method saw every label that was given, so nothing tells how sure its scores are; train it with a part "
            "of them hidden, such as --ratios 0.9"
        )


def _too_few(labels_NC: NDArray[np.int8], held_out_NC: NDArray[np.bool_]) -> UserError:
    """Return the refusal to calibrate, with the known ratio that would hide twice as many labels as are needed."""
    hidden, given = _counts(labels_NC[held_out_NC]), _counts(labels_NC)
    advice = "give more labels"
    if (share := 4 * FEW / max(min(given), 1)) < 0.9:
        advice = f"train at a lower known ratio, such as --ratios {np.floor(10 * (1 - share)) / 10:g}"
    return UserError(
        f"too few given labels were hidden to calibrate: {hidden[0]:,} present and {hidden[1]:,} absent, and about "
        f"{2 * FEW} of each are needed (half of them calibrate); {advice}"
    )


def _half(images: int, seed: int) -> NDArray[np.bool_]:
    """Return the images that calibrate: half of them, so that no image takes part in both halves."""
    calibrates_N = np.zeros(images, dtype=bool)
    order_N = np.random.default_rng(seed_of("calibrating half", seed)).permutation(images)
    calibrates_N[order_N[: images // 2]] = True
    return calibrates_N


def _decided(
    probabilities_NC: NDArray[np.float32],
    labels_NC: NDArray[np.int8],
    calibrating_NC: NDArray[np.bool_],
    choosing_NC: NDArray[np.bool_],
    precision: float,
    seed: int,
) -> tuple[NDArray[np.int8], list[Promise]]:
    """Set what is sure enough, group by group and state by state."""
    decisions_NC, promises = np.full(labels_NC.shape, UNKNOWN, dtype=np.int8), []
    calibrated_C = np.array([not np.isnan(of_one_N).all() for of_one_N in probabilities_NC.T])
    held_out_C, unknown_C = (calibrating_NC | choosing_NC).sum(axis=0), (labels_NC == UNKNOWN).sum(axis=0)
    generator = np.random.default_rng(seed_of("evening out categories", seed))
    for state in STATES:
        labels_C = (calibrating_NC & (labels_NC == state)).sum(axis=0)
        needed = ENOUGH * labels_needed(precision)
        for columns in shared_rows.groups(labels_C, calibrated_C, needed, held_out_C, unknown_C):
            halves = [of[:, columns] for of in (calibrating_NC, choosing_NC)]
            choice = _choice(probabilities_NC[:, columns], labels_NC[:, columns], halves, state, precision, generator)
            unknown_NC = labels_NC[:, columns] == UNKNOWN
            promises.append(Promise(tuple(columns), state, int(unknown_NC.sum()), choice))
            decided = decisions_NC[:, columns]
            decided[unknown_NC & (_sureness(probabilities_NC[:, columns], state) >= choice.threshold)] = state
            decisions_NC[:, columns] = decided
    return decisions_NC, promises


def _choice(
    probabilities_NC: NDArray[np.float32],
    labels_NC: NDArray[np.int8],
    halves: Sequence[NDArray[np.bool_]],
    state: int,
    precision: float,
    generator: np.random.Generator,
) -> Choice:
    """Choose which unknown entries of a group's categories are set to a state.

    Args:
        halves: held-out entries that calibrated, and those that try the thresholds.
    """
    sureness_NC, unknown_NC, is_wrong_NC = _sureness(probabilities_NC, state), labels_NC == UNKNOWN, labels_NC != state
    effect = 1.0
    if labels_NC.shape[1] > 1:
        halves = [shared_rows.evened(half_NC, unknown_NC, generator) for half_NC in halves]
        calibrating, choosing, unknown = (of & (sureness_NC > 0.5) for of in (*halves, unknown_NC))
        effect = shared_rows.design_effect(choosing, unknown, is_wrong_NC, by_NC=calibrating)
    calibrating_NC, choosing_NC = halves
    return choose(
        sureness_NC[calibrating_NC],
        sureness_NC[choosing_NC],
        ~is_wrong_NC[choosing_NC],
        sureness_NC[unknown_NC],
        precision,
        effect,
    )


def _sureness(probabilities_NC: NDArray[np.float32], state: int) -> NDArray[np.float64]:
    """Return the probability of a state."""
    present_NC = probabilities_NC.astype(np.float64)
    return present_NC if state == PRESENT else 1 - present_NC


def _is_uneven(choosing_NC: NDArray[np.bool_], unknown_NC: NDArray[np.bool_], promise: Promise) -> bool:
    """Tell whether held-out entries were left out for a promise, so that its categories have equal shares."""
    columns = list(promise.columns)
    counts = (of[:, columns].sum(axis=0) for of in (choosing_NC, unknown_NC))
    return len(columns) > 1 and shared_rows.is_uneven(*counts)


def _unlike(
    probabilities_NC: NDArray[np.float32],
    held_out_NC: NDArray[np.bool_],
    unknown_NC: NDArray[np.bool_],
    calibrations: Sequence[Calibration],
) -> list[int]:
    """Return the categories whose unknown entries have other probabilities than the held-out ones."""
    found = []
    for column, calibration in enumerate(calibrations):
        held_out_S, unknown_S = (probabilities_NC[of[:, column], column] for of in (held_out_NC, unknown_NC))
        if calibration.kind and len(held_out_S) and len(unknown_S):
            test = ks_2samp(held_out_S, unknown_S, method="asymp")
            if test.statistic >= UNLIKE and test.pvalue < SURELY / len(calibrations):
                found.append(column)
    return found


def _counts(labels: NDArray[np.int8]) -> tuple[int, int]:
    return int((labels == PRESENT).sum()), int((labels == ABSENT).sum())


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")
