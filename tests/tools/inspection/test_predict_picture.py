"""The picture of a prediction is the same each time and has a row for every image."""

import pytest

from mlrpl_bench.tools.inspection.predict_picture import draw_prediction
from tests.helpers.predictions import CATEGORIES, opened, prediction


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((40, 30), {"top": 3}),
        ((300, 20), {"top": 50}),
        ((20, 300), {"top": 1}),
        ((40, 30), {"top": 5, "only_predicted": True}),
    ],
)
@pytest.mark.parametrize("maps", [True, False])
def test_a_prediction_is_drawn_the_same_each_time(size, options, maps):
    drawn = [draw_prediction([prediction(maps, size)] * 2, CATEGORIES, "m 10 %", **options) for _ in range(2)]
    assert drawn[0] == drawn[1]
    opened(drawn[0])


def test_a_prediction_of_nothing_is_drawn():
    opened(draw_prediction([prediction(shift=-9)], CATEGORIES, "m 10 %", 5, only_predicted=True))


def test_every_image_has_its_row_and_maps_take_room():
    one, two = ([prediction()] * count for count in (1, 2))
    height = {len(of): opened(draw_prediction(of, CATEGORIES, "m", 3)).height for of in (one, two)}
    assert height[2] > 1.6 * height[1]
    without = opened(draw_prediction([prediction(maps=False)], CATEGORIES, "m", 3))
    assert opened(draw_prediction(one, CATEGORIES, "m", 3)).width > 1.4 * without.width
