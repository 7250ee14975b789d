"""The example picture shows the best and the worst row, and is left out where something of it is gone."""

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.leaderboard.report.examples import draw
from mlrpl_bench.leaderboard.report.page_data import methods
from tests.helpers.made_up_table import leaderboard
from tests.helpers.tiny_study import CATEGORIES, labels_NC


@pytest.fixture
def split(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(labels_NC()))]
    for path in paths:
        Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(path)
    return Split(list(range(len(labels_NC()))), paths, labels_NC(), CATEGORIES)


@pytest.fixture
def table(tmp_path):
    return leaderboard(tmp_path / "records")


def test_the_best_and_the_worst_are_shown(table, split):
    (picture,) = draw(table, split)
    ranked = methods(table)
    assert f"{ranked[0]} and {ranked[-2]}" in picture.caption  # the last has no record
    assert picture.png.startswith(b"\x89PNG")
    assert draw(table, split) == [picture]


def test_without_the_images_there_is_no_picture(table, split):
    for path in split.image_paths:
        path.unlink()
    assert draw(table, split) == []


def test_a_damaged_file_is_no_obstacle(table, split):
    for of_place in table.cells.values():
        for evidence in of_place.values():
            (evidence.record.folder / "examples.npz").write_bytes(b"no zip")
    assert draw(table, split) == []
