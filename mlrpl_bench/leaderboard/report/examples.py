"""Draws the page's example pictures: what the best and the worst method make of a few test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images import cache
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.leaderboard.evidence import Evidence
from mlrpl_bench.leaderboard.report.attention_picture import draw_examples
from mlrpl_bench.leaderboard.report.page import Picture
from mlrpl_bench.leaderboard.report.page_data import methods
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.records.record import read_arrays_of
from mlrpl_bench.utils.errors import UserError

IMAGES = 4


def draw(table: Leaderboard, test: Split) -> list[Picture]:
    """Draw a picture at the lowest known ratio that both have; none without examples, or where an image is gone.

    Args:
        test: the split that the records' examples are rows of.
    """
    pair = _best_and_worst(table)
    if pair is None:
        return []
    ratio, cells = pair
    try:
        examples = {heading: read_arrays_of(cell.record, "examples") for heading, cell in cells.items()}
        rows = _common_rows(examples)
        setting = next(iter(cells.values())).record.cell.setting
        view = setting.view()
        images = {row: _seen(test.image_paths[row], view) for row in rows}
        if not images:
            return []
        png = draw_examples(images, examples, test.categories, test.labels_NC)
    except (UserError, KeyError, IndexError, TypeError, ValueError):  # arrays of other shapes or kinds, too
        return []
    names = " and ".join(cells)
    seed = next(iter(cells.values())).record.cell.seed
    known = table.context.given.share_of_labels(ratio)
    caption = (
        f"Test images beside {names}, trained with {known} (seed {seed}). For each "
        "image the category on which the methods differ most; below it the probability that each gives it."
    )
    return [Picture(png, f"{len(images)} test images with the attention and the scores of {names}", caption)]


def _best_and_worst(table: Leaderboard) -> tuple[float, dict[str, Evidence]] | None:
    """Return the lowest known ratio at which both have a record, and a cell by heading, of the first shared seeds."""
    for ratio in table.ratios:
        rows = [label for label in methods(table) if table.cells.get((label, ratio))]
        if not rows:
            continue
        chosen = list(dict.fromkeys([rows[0], rows[-1]]))
        by_row = [table.cells[label, ratio] for label in chosen]
        common = sorted(set.intersection(*(set(by_seed) for by_seed in by_row)))
        if common:
            return ratio, {label: by_seed[common[0]] for label, by_seed in zip(chosen, by_row, strict=True)}
    return None


def _seen(path: Path, view: ImageTransform) -> Image.Image:
    """Return an image as the network saw it in the test."""
    return view.test(cache.as_prepared(decode(path, view.decode_at_least), view))


def _common_rows(examples: Mapping[str, Mapping[str, NDArray]]) -> list[int]:
    """Choose rows evenly spread over the rows that all of them have."""
    common = sorted(set.intersection(*(set(arrays["rows"].tolist()) for arrays in examples.values())))
    places = np.unique(np.linspace(0, len(common) - 1, min(IMAGES, len(common))).astype(int))
    return [common[place] for place in places]
