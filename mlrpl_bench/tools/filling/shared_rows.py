"""Makes the promise for several categories together one that the bound of a single category can give.

The bound takes the held-out entries above a threshold for a random sample of all entries there. Of one category that is
so if its labels are missing at random. Of several together it is not, in two cases, which are mended here:

- The categories were given unequal shares of their labels. Then the held-out entries are mostly of those that were
  given more, which may be the easy ones. Held-out entries are left out, drawn by chance, until each category has the
  same share of them (`evened`). Categories that would cost too many are set apart (`alike_shares`).
- The labels of whole images are missing. Then entries come by images, and those of one image may be wrong together. The
  sample counts as one that is smaller by the design effect (Kish, Survey Sampling, 1965; `design_effect`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

UNEVEN = 0.01
"""Categories are taken for unequally labelled if equal shares would look so with less than this chance."""

APART = 2.0
"""Categories in one row have at most so many times the share of held-out entries that another of the row has."""


def alike_shares(held_out_C: NDArray[np.intp], unknown_C: NDArray[np.intp]) -> Iterator[list[int]]:
    """Yield categories (their places) whose shares of held-out entries differ by less than `APART`; in one group where
    all may be equal.

    Args:
        held_out_C, unknown_C: entries of each category that are held out, and that nobody gave.
    """
    if not is_uneven(held_out_C, unknown_C):
        yield list(range(len(held_out_C)))
        return
    odds_C = held_out_C / np.maximum(unknown_C, 1)
    group: list[int] = []
    for place in np.argsort(odds_C, kind="stable").tolist():
        if group and odds_C[place] > APART * odds_C[group[0]]:
            yield sorted(group)
            group = []
        group.append(place)
    yield sorted(group)


def is_uneven(held_out_C: NDArray[np.intp], unknown_C: NDArray[np.intp]) -> bool:
    """Tell whether categories have other shares of held-out entries than chance explains (chi-square test)."""
    lot_C = held_out_C + unknown_C
    share = held_out_C.sum() / max(lot_C.sum(), 1)
    if not 0 < share < 1:
        return False
    there = lot_C > 0
    distance = ((held_out_C - share * lot_C)[there] ** 2 / (share * (1 - share) * lot_C[there])).sum()
    return bool(chi2.sf(distance, max(int(there.sum()) - 1, 1)) < UNEVEN)


def evened(
    held_out_NC: NDArray[np.bool_], unknown_NC: NDArray[np.bool_], generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Leave held-out entries out until each category has as many for each unknown entry; all stay where that may be so.

    A category without unknown entries has none afterwards, as it is not what the promise is about.
    """
    held_out_C, unknown_C = held_out_NC.sum(axis=0), unknown_NC.sum(axis=0)
    if not is_uneven(held_out_C, unknown_C):
        return held_out_NC
    odds_C = held_out_C / np.maximum(unknown_C, 1)
    kept_C = odds_C[unknown_C > 0].min(initial=np.inf) / np.where(odds_C > 0, odds_C, 1)
    kept_C = np.where(unknown_C > 0, kept_C, 0)
    return held_out_NC & (generator.random(held_out_NC.shape) < kept_C)


def design_effect(
    sample_NC: NDArray[np.bool_],
    unknown_NC: NDArray[np.bool_],
    is_wrong_NC: NDArray[np.bool_],
    by_NC: NDArray[np.bool_],
) -> float:
    """Return how many entries of the sample tell as much as one that was drawn by itself; at least 1.

    1 + r (e - 1): r is how far entries of one image are in the sample together (0: each by itself, 1: whole images), e
    how far they are wrong together: the variance of an image's number of wrong ones, in that of independent ones.

    Args:
        sample_NC, unknown_NC: entries that try the thresholds, and those that are set; one lot.
        is_wrong_NC, by_NC: which entries would be set wrongly, known where `by_NC`: entries that are no part of the
            sample, so that its bound does not rest on itself.
    """
    lot_NC = sample_NC | unknown_NC
    share_C = sample_NC.sum(axis=0) / np.maximum(lot_NC.sum(axis=0), 1)
    in_sample_NC = np.where(lot_NC, sample_NC - share_C, 0.0)
    spread_NC = np.where(lot_NC, np.sqrt(share_C * (1 - share_C)), 0.0)
    together = min(max(_between(in_sample_NC) / max(_between(spread_NC), 1e-9), 0.0), 1.0)
    wrong_NC = np.where(by_NC, is_wrong_NC - is_wrong_NC[by_NC].mean() if by_NC.any() else 0.0, 0.0)
    return 1 + together * max(_between(wrong_NC) / max(float((wrong_NC**2).sum()), 1e-9), 0.0)


def _between(values_NC: NDArray[np.float64]) -> float:
    """Return the sum of the products of different entries of one image."""
    return float((values_NC.sum(axis=1) ** 2).sum() - (values_NC**2).sum())


def groups(
    labels_C: NDArray[np.intp],
    calibrated_C: NDArray[np.bool_],
    needed: int,
    held_out_C: NDArray[np.intp],
    unknown_C: NDArray[np.intp],
) -> Iterator[Sequence[int]]:
    """Yield each category with enough labels of the state in the calibrating half; then the others together.

    Args:
        labels_C: of the state, in that half.
        calibrated_C: which categories have probabilities.
        needed: labels that are enough.
        held_out_C, unknown_C: as in `alike_shares`.
    """
    alone_C = calibrated_C & (labels_C >= needed)
    yield from ([column] for column in np.flatnonzero(alone_C).tolist())
    others = np.flatnonzero(calibrated_C & ~alone_C)
    if len(others):
        yield from (others[places].tolist() for places in alike_shares(held_out_C[others], unknown_C[others]))
