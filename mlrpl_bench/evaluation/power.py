"""Estimates how many more seeds would settle a comparison, if the difference stayed what it is (power analysis)."""

from __future__ import annotations

import math

import numpy as np

POWER = 0.8
MOST = 100
"""Numbers beyond this are not told apart: nobody trains them."""


def more_seeds(distance: float, images_error: float, spread: float, seeds: int, alpha: float) -> float:
    """Count the seeds to add until an interval excludes a value so far away, in about 80 % of repetitions.

    With S seeds, the half-width at level ``1 - alpha`` is ``hypot(z images_error, t_{S-1} spread / sqrt(S))``: seeds
    shrink the second part, the test images' error stays. The spread comes from as few seeds as there are, so the
    answer is a rough one.

    Args:
        distance: from the measured difference to the value that is to be excluded.
        images_error: standard error of the difference from the test images that all seeds share.
        spread: the standard deviation of the difference over seeds.
        seeds: how many there are.
        alpha: two-sided.

    Returns:
        1 or more; infinity where no number of seeds is enough, for the test images alone do not tell, or where it
        would take more than `MOST`.

    >>> more_seeds(distance=1.0, images_error=0.1, spread=0.5, seeds=2, alpha=0.05)
    3
    """
    from scipy.stats import norm, t

    total_K = np.arange(seeds + 1, seeds + 1 + MOST)
    half_K = np.hypot(norm.isf(alpha / 2) * images_error, t.isf(alpha / 2, total_K - 1) * spread / np.sqrt(total_K))
    error_K = np.hypot(images_error, spread / np.sqrt(total_K))
    enough_K = np.flatnonzero(half_K + norm.isf(1 - POWER) * error_K <= distance)
    return int(total_K[enough_K[0]]) - seeds if len(enough_K) else math.inf


def images_alone_cannot_tell(distance: float, images_error: float, alpha: float) -> bool:
    """Say whether the test images' error alone is too large for any number of seeds, at the same power."""
    from scipy.stats import norm

    return bool(distance < (norm.isf(alpha / 2) + norm.isf(1 - POWER)) * images_error)
