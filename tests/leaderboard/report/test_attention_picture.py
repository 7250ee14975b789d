"""The pictures are whole, the same each time, and show what they should; how they look is for eyes."""

import numpy as np
from PIL import Image

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.leaderboard.report.attention_picture import SIDE, draw_examples, overlay, telling_category
from tests.helpers.predictions import CATEGORIES, opened, prediction


def test_the_heat_is_where_the_map_is_high():
    map_HW = np.zeros((7, 7), dtype=np.float32)
    map_HW[1, 5] = 0.01
    picture = Image.new("RGB", (56, 56), (120, 120, 120))
    heat_HW3 = overlay(picture, map_HW).astype(int)
    assert min(heat_HW3.shape[:2]) >= SIDE
    colour_HW = np.ptp(heat_HW3, axis=2)
    row, column = np.unravel_index(colour_HW.argmax(), colour_HW.shape)
    assert (row * 7 // len(heat_HW3), column * 7 // heat_HW3.shape[1]) == (1, 5)
    assert colour_HW[-1, 0] < 5  # grey where the map is zero


def test_a_map_without_any_attention_or_with_no_numbers_is_grey():
    picture = Image.new("RGB", (300, 60), (120, 10, 10))
    for value in (0, np.nan):
        heat_HW3 = overlay(picture, np.full((2, 2), value, dtype=np.float32)).astype(int)
        assert heat_HW3.shape[1] == 5 * heat_HW3.shape[0]
        assert np.ptp(heat_HW3, axis=2).max() < 5


def test_the_category_is_one_that_is_there_and_divides_the_methods():
    logits = [np.array([0.0, 0, 0, 0]), np.array([9.0, 1, -2, 0])]
    assert telling_category(logits, np.array([ABSENT, PRESENT, PRESENT, PRESENT])) == 2
    assert telling_category(logits, np.full(4, ABSENT)) == 0
    # of an image without a known present label, one that is known not to be there; else any
    assert telling_category(logits, np.array([UNKNOWN, UNKNOWN, ABSENT, ABSENT])) == 2
    assert telling_category(logits, np.full(4, UNKNOWN)) == 0


def examples(maps: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    arrays = {"rows": np.array([0, 4, 9]), "scores": random.normal(size=(3, 5)).astype(np.float32)}
    return arrays | ({"attention": random.random((3, 5, 7, 7)).astype(np.float32)} if maps else {})


def test_examples_are_drawn_the_same_each_time_and_each_method_is_a_column():
    images = {row: prediction().seen for row in (9, 4)}
    labels_NC = np.where(np.eye(10, 5) == 1, PRESENT, ABSENT).astype(np.int8)
    methods = {"best 10 % seed 0": examples(True), "worst[with=hyper-parameters] 10 % seed 0": examples(False)}
    drawn = [draw_examples(images, methods, CATEGORIES, labels_NC) for _ in range(2)]
    assert drawn[0] == drawn[1]
    alone = draw_examples(images, {"best": examples(True)}, CATEGORIES, labels_NC)
    assert opened(drawn[0]).width > 1.3 * opened(alone).width


def test_a_row_is_found_by_its_number():
    labels_NC = np.full((10, 5), ABSENT, dtype=np.int8)
    image, one = {9: prediction().seen}, examples(True)
    order = [2, 0, 1]
    shuffled = {name: array[order] for name, array in one.items()}
    drawn = [draw_examples(image, {"m": arrays}, CATEGORIES, labels_NC) for arrays in (one, shuffled)]
    assert drawn[0] == drawn[1]
