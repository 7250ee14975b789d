"""Draws the unknown entries of which the method is surest, and the most doubtful ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.filling.fill_in import STATES, Filling
from mlrpl_bench.tools.inspection.contact_sheet import BLACK, GREEN, GREY, ORANGE, Word, draw_tiles

SHOWN = 8
"""This many entries of each kind are drawn: two rows of the sheet."""
OF_A_CATEGORY = 2
"""At most this many entries of a kind are of one category."""

COLOURS = {PRESENT: GREEN, ABSENT: GREY, UNKNOWN: ORANGE}


def draw(filling: Filling, title: str) -> bytes:
    """Draw the sheet as a PNG: first those that are surest to be present, then the surest absent, then the doubtful.

    Raises:
        UserError: an image cannot be decoded.
    """
    entries = [entry for found in chosen(filling) for entry in found]
    legend = [Word("surest present", GREEN), Word("surest absent", GREY), Word("most doubtful", ORANGE)]
    legend.append(Word("probability of being present; what it was set to", BLACK))
    return draw_tiles(
        filling.split,
        title,
        legend,
        [row for row, _, _ in entries],
        [_words(filling, row, column, kind) for row, column, kind in entries],
    )


def chosen(filling: Filling) -> Iterator[list[tuple[int, int, int]]]:
    """Yield the drawn entries as (row, column, kind): PRESENT and ABSENT are the surest, UNKNOWN the doubtful."""
    probabilities_NC = filling.probabilities_NC
    more_present_NC, is_open_NC = probabilities_NC >= 0.5, filling.decisions_NC == UNKNOWN
    for kind, doubt_NC in (
        (PRESENT, np.where(more_present_NC, 1 - probabilities_NC, np.nan)),
        (ABSENT, np.where(more_present_NC, np.nan, probabilities_NC)),
        (UNKNOWN, np.where(is_open_NC, np.abs(probabilities_NC - 0.5), np.nan)),
    ):
        yield [(row, column, kind) for row, column in _lowest(doubt_NC)]


def _lowest(doubt_NC: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Return the entries with the lowest values, the lowest first; NaN is none."""
    candidates = []
    for column in range(doubt_NC.shape[1]):
        order_N = np.argsort(doubt_NC[:, column], kind="stable")[:OF_A_CATEGORY]  # NaN is sorted to the end
        candidates += [(float(doubt_NC[row, column]), int(row), column) for row in order_N]
    return [(row, column) for value, row, column in sorted(candidates) if not np.isnan(value)][:SHOWN]


def _words(filling: Filling, row: int, column: int, kind: int) -> list[Word]:
    """Return the category, its probability, and what became of the entry."""
    decision = int(filling.decisions_NC[row, column])
    state = f"set {STATES[decision]}" if decision in STATES else "left unknown"
    probability = 100 * float(filling.probabilities_NC[row, column])
    digits = 1 if 0.1 <= probability <= 99.9 else 3
    return [
        Word(filling.split.categories[column], COLOURS[kind]),
        Word(f"{probability:.{digits}f} %", BLACK),
        Word(state, COLOURS[decision] if decision in STATES else BLACK),
    ]
