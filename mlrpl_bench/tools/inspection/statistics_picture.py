"""This module draws a dataset's statistics: images of each category, which occur together, what is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.leaderboard.report.attention_picture import png
from mlrpl_bench.leaderboard.report.picture_text import picture_names, shortened
from mlrpl_bench.tools.inspection.label_statistics import FEW, Statistics
from mlrpl_bench.utils.tables import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure


BLUE, ORANGE, GREY, RED = "#2a6f97", "#d9730d", "#8a8f98", "#b02a37"


DPI = 110


WIDTH = 15.0
"""This is the width in inches, as all sizes here."""


BAR_HEIGHT = 0.165


BARS_IN_A_COLUMN = 50


PLAIN = "{x:,g}"
"""This formats numbers on logarithmic axes: 1,000 instead of a power of ten."""


MATRIX_NAMES = 80
"""The matrix shows at most this many categories, so that every name can be read."""


def draw(statistics: Statistics, name: str) -> bytes:
    """Draw the picture as a PNG; every category's name is in it, so that it grows with their number."""
    from matplotlib.figure import Figure

    columns = columns_of_bars(len(statistics.categories))
    in_column = math.ceil(len(statistics.categories) / columns)
    bars_height = in_column * BAR_HEIGHT + 1.0
    matrix_height = matrix_side(len(statistics.categories)) + 1.6
    figure = Figure(figsize=(WIDTH, bars_height + matrix_height + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(_title(statistics, name), fontsize=13, weight="bold")
    halves: Any = figure.subfigures(2, 1, height_ratios=[bars_height, matrix_height])
    above, below = halves
    _draw_bars(above, statistics, columns, in_column)
    left, right = below.subfigures(1, 2, width_ratios=[1.75, 1])
    _draw_matrix(left, statistics)
    upper, lower = right.subplots(2, 1)
    _draw_positives(upper, statistics)
    _draw_shares(lower, statistics)
    return png(figure)


def columns_of_bars(num_categories: int) -> int:
    """Return how many columns of bars stand side by side: two for 20 categories, four for 200."""
    return max(2 if num_categories > 10 else 1, math.ceil(num_categories / BARS_IN_A_COLUMN))


def matrix_side(num_categories: int) -> float:
    """Return the height of the matrix: its names' lines, but no stamp."""
    return max(4.6, min(num_categories, MATRIX_NAMES) * 0.105)


def _title(statistics: Statistics, name: str) -> str:
    images = ", ".join(f"{len(counts.labels_N):,} {split}" for split, counts in statistics.splits.items())
    mean = statistics.train.labels_N.mean()
    categories = counted(len(statistics.categories), "category", "categories")
    return f"{shortened(name, 60)}: {images} images, {categories}, {mean:.2f} labels an image"


def _draw_bars(figure: SubFigure, statistics: Statistics, columns: int, in_column: int) -> None:
    """Draw the images of each category, the most frequent first, and the known positives at the lowest ratio below."""
    order = statistics.by_frequency()
    positives_C = statistics.train.positives_C
    names, note = picture_names(statistics.categories)
    fewest = min(statistics.known, key=lambda known: known.ratio)
    panels = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    for panel, start in zip(panels, range(0, columns * in_column, in_column), strict=True):
        chosen = order[start : start + in_column]
        places = range(len(chosen))
        panel.barh(places, positives_C[chosen], height=0.8, color=BLUE, label="training images")
        known = f"known at {fewest.ratio:g}"
        panel.barh(places, fewest.positives_C[chosen], height=0.35, color=ORANGE, label=known)
        panel.set_yticks(places, [names[column] for column in chosen], fontsize=8)
        _mark_unknown(panel, [place for place in places if not fewest.positives_C[chosen[place]]], positives_C[chosen])
        panel.set_ylim(in_column - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=8)
        panel.grid(axis="x", alpha=0.3)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    if positives_C.max() > 30 * max(positives_C.min(), 1):
        panels[0].set_xscale("log")
        panels[0].xaxis.set_major_formatter(PLAIN)
        panels[0].set_xlim(left=max(0.7, 0.7 * fewest.positives_C.min()))
    if not fewest.positives_C.all():
        unknown = f"red: no known positive at {fewest.ratio:g}"
        note = f"{unknown}; {note}" if note else unknown
    figure.suptitle(f"Images of each category{' (' * bool(note)}{note}{')' * bool(note)}", fontsize=11)
    panels[-1].legend(fontsize=8, loc="lower right")


def _mark_unknown(panel: Axes, places: Sequence[int], positives_B: NDArray[np.intp]) -> None:
    """Mark the bars of categories of which nothing is known."""
    labels = panel.get_yticklabels()
    leftmost = min(1, positives_B.max())  # zero has no place on a logarithmic axis
    for place in places:
        labels[place].set_color(RED)
        panel.text(max(positives_B[place], leftmost), place, " none known", color=RED, fontsize=7, va="center")


def _draw_matrix(figure: SubFigure, statistics: Statistics) -> None:
    """Draw which share of the images with the row's category also shows the column's."""
    from matplotlib.colors import PowerNorm

    order = statistics.by_frequency()[:MATRIX_NAMES]
    together_CC = statistics.together_CC[np.ix_(order, order)].astype(float)
    share_CC = together_CC / np.maximum(np.diag(together_CC), 1)[:, None]
    np.fill_diagonal(share_CC, np.nan)
    highest = max(float(np.nanmax(share_CC)), 0.01) if len(order) > 1 else 1.0
    panel = figure.subplots()
    image = panel.imshow(share_CC, cmap="viridis", norm=PowerNorm(0.5, 0, highest), interpolation="nearest")
    panel.set_facecolor("#dddddd")
    all_names = picture_names(statistics.categories).names
    names = [all_names[column] for column in order]
    size = 8 if len(order) <= 40 else 6.5
    panel.set_xticks(range(len(order)), names, rotation=90, fontsize=size)
    panel.set_yticks(range(len(order)), names, fontsize=size)
    panel.tick_params(length=0, pad=2)
    which = f", the {len(order)} most frequent" if len(order) < len(statistics.categories) else ""
    panel.set_title(f"Occur together: of the row's images, the share with the column's{which}", fontsize=10)
    bar = figure.colorbar(image, ax=panel, shrink=0.6, pad=0.02)
    bar.ax.tick_params(labelsize=8)


def _draw_positives(panel: Axes, statistics: Statistics) -> None:
    """Draw how many known positives the categories have at each ratio."""
    ratios = [known.ratio for known in statistics.known]
    positives_RC = np.stack([known.positives_C for known in statistics.known])
    # On the logarithmic axis a category without any known positive stands at half an image.
    low_R, middle_R, high_R = np.maximum(np.quantile(positives_RC, (0, 0.5, 1), axis=1), 0.5)
    unknown_R = (positives_RC == 0).any(axis=1)
    panel.fill_between(ratios, low_R, high_R, color=BLUE, alpha=0.15, linewidth=0)
    panel.plot(ratios, high_R, color=BLUE, linewidth=1, label="most frequent category")
    panel.plot(ratios, middle_R, "o-", color=BLUE, markersize=4, label="median")
    panel.plot(ratios, low_R, "v-", color=ORANGE, markersize=5, label="rarest category")
    if unknown_R.any():
        where = np.array(ratios)[unknown_R]
        panel.plot(where, low_R[unknown_R], "X", color=RED, markersize=7, label="some category: none known")
    panel.axhline(FEW, color=GREY, linestyle="--", linewidth=1, label=f"{FEW} images")
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(PLAIN)
    panel.set_title("Known positives of a category", fontsize=10)
    _finish_lines(panel, ratios)


def _draw_shares(panel: Axes, statistics: Statistics) -> None:
    """Draw the share of labels that is known, and the share of images without any known label."""
    known = statistics.known
    ratios = [counts.ratio for counts in known]
    images = len(statistics.train.labels_N)
    lines = {
        "present labels known": ([counts.present_share for counts in known], BLUE, "o-"),
        "absent labels known": ([counts.absent_share for counts in known], GREY, "x:"),
        "images without a known present label": (
            [counts.images_without_present / images for counts in known],
            ORANGE,
            "v-",
        ),
        "images without any known label": ([counts.images_without_any / images for counts in known], RED, "s-"),
    }
    for label, (shares, colour, style) in lines.items():
        panel.plot(ratios, [100 * share for share in shares], style, color=colour, markersize=4, label=label)
    panel.set_ylim(-3, 103)
    panel.set_ylabel("%", fontsize=9)
    panel.set_title(f"Known share, mask seed {statistics.mask_seed}", fontsize=10)
    _finish_lines(panel, ratios)


def _finish_lines(panel: Axes, ratios: list[float]) -> None:
    panel.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    panel.set_xlabel("known ratio", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
