"""Scores of a method that was never trained, with labels whose probabilities are known, some of them not given.

Test modules import this; it has no tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN


class Simulated(NamedTuple):
    """A training split as `fill_in` gets it, and the truth.

    Attributes:
        split: with the labels that were given.
        mask_NC: which of these the method saw.
        logits_NC: its scores.
        truth_NC: all labels.
        chances_NC: the probability of each to be present.
    """

    split: Split
    mask_NC: np.ndarray
    logits_NC: np.ndarray
    truth_NC: np.ndarray
    chances_NC: np.ndarray


def simulate(
    images: int = 2000,
    offsets=(0.0, -1.0, -3.0),
    given: float = 0.5,
    hidden: float = 0.4,
    slope: float = 2.0,
    bent: bool = False,
    seed: int = 0,
) -> Simulated:
    """Draw scores, labels that follow them, which labels are given, and which of these are hidden.

    Args:
        offsets: of each category; the lower, the rarer it is.
        given: share of the labels that somebody gave.
        hidden: share of these that the method did not see.
        slope: how much the scores tell.
        bent: whether the probability follows another curve than a logistic one.
    """
    random = np.random.default_rng(seed)
    shape = images, len(offsets)
    logits_NC = random.normal(size=shape)
    chances_NC = expit(slope * logits_NC + np.array(offsets))
    if bent:
        chances_NC = 0.04 + 0.9 * chances_NC**2
    truth_NC = np.where(random.random(shape) < chances_NC, PRESENT, ABSENT).astype(np.int8)
    labels_NC = np.where(random.random(shape) < given, truth_NC, UNKNOWN).astype(np.int8)
    names = [f"{row}.jpg" for row in range(images)]
    categories = tuple(f"thing {column}" for column in range(len(offsets)))
    split = Split(names, [Path(name) for name in names], labels_NC, categories)
    return Simulated(split, random.random(shape) >= hidden, logits_NC.astype(np.float32), truth_NC, chances_NC)
