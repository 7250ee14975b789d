"""This module draws the picture of a prediction: scores as bars, and where each category looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlrpl_bench.leaderboard.report.attention_picture import DPI, explain, overlay, percent, plain, png, show
from mlrpl_bench.leaderboard.report.picture_text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlrpl_bench.tools.predict import Prediction


BLUE, GREY = "#2a6f97", "#a3a8b0"


BACKGROUND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""The box behind a number, where a line may run below it."""


MAPS = 4
"""Categories of an image whose maps are drawn."""


def draw_prediction(
    predictions: Sequence[Prediction],
    categories: Sequence[str],
    title: str,
    top: int,
    only_predicted: bool = False,
) -> bytes:
    """Draw a row for each image as a PNG: the picture, its highest scores, and where these categories look.

    Args:
        top: how many scores to show.
        only_predicted: show only those of them at 50 % or above.
    """
    from matplotlib.figure import Figure

    shown = [prediction.best(top, only_predicted) for prediction in predictions]
    maps = min(MAPS, max(1, *map(len, shown))) if predictions[0].attention_CHW is not None else 1
    lines = max(4, *map(len, shown))  # fewer would make bars like bricks
    height = max(2.3, 0.21 * lines + 0.5)
    widths = [1.5, 1.7, *[1.5] * maps]
    figure = Figure((1.35 * sum(widths), height * len(predictions) + 0.7), dpi=DPI, layout="constrained")
    figure.suptitle(plain(title), fontsize=11)
    explain(figure, any(prediction.attention_CHW is not None for prediction in predictions))
    rows = figure.subplots(len(predictions), len(widths), squeeze=False, width_ratios=widths)
    for prediction, columns, (left, middle, *right) in zip(predictions, shown, rows, strict=True):
        show(left, np.asarray(prediction.picture), shortened(prediction.path.name, 24))
        _draw_bars(middle, prediction, columns, categories, lines)
        _draw_maps(right, prediction, columns, categories)
    return png(figure)


def _draw_bars(
    panel: Axes, prediction: Prediction, shown: Sequence[int], categories: Sequence[str], lines: int
) -> None:
    """Draw the scores of some categories.

    There is room for `lines` of them, so that bars of all images are equally thick.
    """
    probabilities = prediction.probabilities_C[list(shown)]
    panel.set_title("probability", fontsize=8.5)
    panel.barh(range(len(shown)), probabilities, color=[BLUE if p >= 0.5 else GREY for p in probabilities])
    for place, probability in enumerate(probabilities):
        panel.text(probability + 0.02, place, percent(probability), va="center", fontsize=7.5, bbox=BACKGROUND)
    panel.set_yticks(range(len(shown)), [shortened(categories[column]) for column in shown], fontsize=8)
    panel.set_ylim(lines - 0.4, -0.6)
    panel.set_xlim(0, 1.2)
    panel.set_xticks([0.5], ["50 %"], fontsize=7.5)
    panel.axvline(0.5, color="#555555", linewidth=0.8, linestyle=":", zorder=0)
    panel.tick_params(length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    if not shown:
        panel.text(0.6, 0, "nothing at 50 % or above", ha="center", fontsize=8, bbox=BACKGROUND)


def _draw_maps(panels: Sequence[Axes], prediction: Prediction, shown: Sequence[int], categories: Sequence[str]) -> None:
    for panel in panels:
        panel.set_axis_off()
    if prediction.attention_CHW is None:
        show(panels[0], None, "")
        return
    for panel, column in zip(panels, shown, strict=False):
        title = f"{shortened(categories[column])} {percent(prediction.probabilities_C[column])}"
        show(panel, overlay(prediction.seen, prediction.attention_CHW[column]), title)
