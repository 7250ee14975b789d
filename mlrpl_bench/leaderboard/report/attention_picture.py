"""Draws over images where each category looks: for the picture of ``predict``, and a grid for the report's page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.special import expit

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.leaderboard.report.picture_text import drawable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = "inferno"
"""This colour map is perceptually uniform, and in order of brightness for every kind of colour vision."""


DPI = 110


SIDE = 224
"""Pixels that an overlay has at least; small images are enlarged."""


STRENGTH = 0.6
"""This is the map's share of an overlay's colour; the rest is the image in grey, so that all colour means attention."""


NO_MAPS = "this method has\nno attention maps"


SCALE = "heat: where a category looks, each map from black (0) to yellow (its own highest value)"


def overlay(image: Image.Image, map_HW: NDArray) -> NDArray[np.uint8]:
    """Draw a map as heat over the grey image (H, W, 3), from 0 to the map's own maximum."""
    from matplotlib import colormaps

    times = max(1, -(-SIDE // min(image.size)))
    size = (times * image.width, times * image.height)
    grey = ImageOps.autocontrast(image.convert("L").resize(size, Image.Resampling.BICUBIC), cutoff=1)
    grey_HW1 = np.asarray(grey, dtype=np.float32)[..., None] / 255
    map_HW = np.nan_to_num(np.asarray(map_HW, dtype=np.float32))
    share_HW = map_HW / max(float(map_HW.max()), 1e-12)
    heat_HW = np.asarray(Image.fromarray(share_HW).resize(size, Image.Resampling.BILINEAR))
    heat_HW3 = colormaps[COLOURS](heat_HW)[..., :3]
    return (255 * (STRENGTH * heat_HW3 + (1 - STRENGTH) * grey_HW1)).round().astype(np.uint8)


def draw_examples(
    images: Mapping[int, Image.Image],
    examples: Mapping[str, Mapping[str, NDArray]],
    categories: Sequence[str],
    labels_NC: NDArray[np.int8],
) -> bytes:
    """Draw a few test images beside what methods make of them, as a PNG; for the category, see `telling_category`.

    Args:
        images: by test row, as the network sees them; each is a row of the grid.
        examples: by the column's heading, a record's ``examples.npz``.
        labels_NC: test labels, UNKNOWN where nobody gave one.
    """
    from matplotlib.figure import Figure

    columns = 1 + len(examples)
    figure = Figure((2.0 * columns + 0.2, 2.4 * len(images) + 0.3), dpi=DPI, layout="constrained")
    explain(figure, any("attention" in arrays for arrays in examples.values()))
    panels = figure.subplots(len(images), columns, squeeze=False)
    for (row, image), (first, *others) in zip(images.items(), panels, strict=True):
        logits = {name: _of_row(arrays, "scores", row) for name, arrays in examples.items()}
        column = telling_category(list(logits.values()), labels_NC[row])
        label = labels_NC[row, column]
        truth = {PRESENT: "is there", ABSENT: "is not there", UNKNOWN: "unknown"}[int(label)]
        show(first, np.asarray(image), f"{shortened(categories[column], 22)}\n{truth}")
        for panel, (name, arrays) in zip(others, examples.items(), strict=True):
            logit = float(logits[name][column])
            verdict = "" if label == UNKNOWN else ": right" if (logit >= 0) == (label == PRESENT) else ": wrong"
            has_maps = "attention" in arrays
            pixels = overlay(image, _of_row(arrays, "attention", row)[column]) if has_maps else None
            show(panel, pixels, f"{shortened(name, 26)}\n{percent(expit(logit))}{verdict}")
    return png(figure)


def telling_category(logits: Sequence[NDArray], labels_C: NDArray[np.int8]) -> int:
    """Return the category on which the methods differ most in probability.

    It is one of those that are there, or else of those that are known not to be there, or else of all.
    """
    probabilities_MC = expit(np.stack(logits).astype(np.float64))
    spread_C = np.ptp(probabilities_MC, axis=0)
    for state in (PRESENT, ABSENT):
        if (labels_C == state).any():
            return int(np.argmax(np.where(labels_C == state, spread_C, -1)))
    return int(np.argmax(spread_C))


def show(panel: Axes, pixels_HW3: NDArray | None, title: str) -> None:
    """Show an image without axes under a title; None stands for a method that has no map."""
    panel.set_title(plain(title), fontsize=8.5)
    panel.set_axis_off()
    panel.set_anchor("N")
    if pixels_HW3 is None:
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)
        panel.set_aspect("equal")
        panel.text(0.5, 0.5, NO_MAPS, ha="center", va="center", fontsize=9, color="#555555")
    else:
        panel.imshow(pixels_HW3, interpolation="antialiased")


def plain(text: str) -> str:
    """Put text into letters that the font has, and escape dollar signs, which would begin a formula in matplotlib."""
    return "\n".join(map(drawable, text.split("\n"))).replace(r"\$", "$").replace("$", r"\$")


def percent(probability: float) -> str:
    """Word a probability as the tables do: ``84 %``."""
    return f"{100 * probability:.0f} %"


def explain(figure: Figure, has_maps: bool) -> None:
    """Say below a figure what its colours mean, if it has any."""
    if has_maps:
        figure.supxlabel(SCALE, fontsize=8, color="#555555")


def _of_row(arrays: Mapping[str, NDArray], name: str, row: int) -> NDArray:
    return arrays[name][arrays["rows"].tolist().index(row)]


def png(figure: Figure) -> bytes:
    """Write a figure as a PNG on white, without matplotlib's version, which would change bytes and no pixel."""
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    figure.savefig(file, format="png", metadata=metadata, facecolor="white")
    return file.getvalue()
