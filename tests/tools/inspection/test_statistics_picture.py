"""The picture of the statistics is a PNG with something in it, for few and for many categories."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.leaderboard.report import picture_text
from mlrpl_bench.tools.inspection import statistics_picture
from mlrpl_bench.tools.inspection.label_statistics import measure
from tests.helpers.made_up_labels import labels, split


def picture(labels_NC) -> np.ndarray:
    statistics = measure({"train": split(labels_NC), "test": split(labels_NC[:4])})
    return np.asarray(Image.open(io.BytesIO(statistics_picture.draw(statistics, "mine"))).convert("RGB"))


@pytest.mark.parametrize("num_categories", [1, 20, 90])
def test_the_picture_is_as_wide_as_it_should_be_and_shows_bars_and_a_matrix(num_categories):
    pixels_HW3 = picture(labels(50, num_categories))
    assert pixels_HW3.shape[1] == statistics_picture.WIDTH * statistics_picture.DPI
    height = pixels_HW3.shape[0]
    blue = (np.abs(pixels_HW3.astype(int) - (0x2A, 0x6F, 0x97)).sum(2) < 12).mean(1)
    assert blue[: height // 2].mean() > 0.02
    assert len(np.unique(pixels_HW3.reshape(-1, 3), axis=0)) > 100


def test_more_categories_make_a_higher_picture():
    assert len(picture(labels(30, 60))) > len(picture(labels(30, 20)))


def test_labels_that_are_all_absent_can_be_drawn():
    assert picture(np.full((6, 3), ABSENT, dtype=np.int8)).size


@pytest.mark.parametrize(("categories", "columns"), [(1, 1), (10, 1), (20, 2), (80, 2), (200, 4), (201, 5)])
def test_bars_stand_in_as_many_columns_as_keep_names_readable(categories, columns):
    assert statistics_picture.columns_of_bars(categories) == columns


def test_a_dollar_sign_starts_no_formula():
    assert picture_text.shortened("$a_1$") == r"\$a_1\$"


def test_a_category_without_a_known_positive_is_marked(monkeypatch):
    def red(labels_NC) -> int:
        pixels_HW3 = picture(labels_NC)[: statistics_picture.DPI * 2].astype(int)
        return int((np.abs(pixels_HW3 - (0xB0, 0x2A, 0x37)).sum(2) < 12).sum())

    known = np.full((60, 3), PRESENT, dtype=np.int8)
    rare = known.copy()
    rare[:, 1] = ABSENT
    assert red(known) == 0 < red(rare)


@pytest.mark.filterwarnings("error")
def test_emoji_and_long_names_spoil_nothing():
    names = ("🦊", "猫", "a very long name of a category " * 9)
    odd = dataclasses.replace(split(labels(30, 3)), categories=names)
    content = statistics_picture.draw(measure({"train": odd}), "own 🦊 $data$")
    assert Image.open(io.BytesIO(content)).width == statistics_picture.WIDTH * statistics_picture.DPI
