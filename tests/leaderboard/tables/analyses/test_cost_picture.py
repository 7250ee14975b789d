"""The picture of costs."""

import re

import numpy as np
import pytest

from mlrpl_bench.leaderboard.tables.analyses.cost_picture import Point, draw


def names_in(svg):
    return re.findall(r">([^<>\n]+)</text>", svg.decode())


@pytest.fixture(scope="module")
def crowd():
    """Thirty rows, of which the last ones lie on top of each other."""
    random = np.random.default_rng(0)
    spread = [Point(f"row {n}", float(c), float(m), n == 0) for n, (c, m) in enumerate(random.uniform(1, 50, (20, 2)))]
    return [*spread, *(Point(f"twin {n}", 60.0, 60.0, n == 0) for n in range(10))]


def test_rows_are_named_and_names_that_would_lie_on_others_are_left_out(crowd):
    names = names_in(draw({"GPU": crowd}, "mAP")["svg"])
    shown = [name for name in names if name.startswith("twin")]
    assert {"row 0", "twin 0"} <= set(names)
    assert 1 <= len(shown) < 10
    assert len(shown) == len(set(shown))


def test_each_device_has_a_panel_and_hostile_names_are_text():
    point = Point("a$b<c>", 1.0, 50.0, True)
    names = names_in(draw({"NVIDIA $H100 (GPU-hours)": [point], "CPU": [point]}, "mAP")["svg"])
    assert names.count("a$b&lt;c&gt;") == 2
    assert [name for name in names if "cost of a cell" in name] == [
        "cost of a cell, NVIDIA $H100 (GPU-hours)", "cost of a cell, CPU"
    ]  # fmt: skip


@pytest.mark.parametrize(("costs", "ticks"), [((0.008, 0.011), "0.0090"), ((0.1, 40.0), "20")])
def test_the_cost_axis_has_numbers_at_every_width(costs, ticks):
    points = [Point("a", costs[0], 50.0, True), Point("b", costs[1], 60.0, True)]
    assert ticks in names_in(draw({"GPU": points}, "mAP")["svg"])


def test_the_same_points_give_the_same_bytes(crowd):
    assert draw({"GPU": crowd[:3]}, "mAP") == draw({"GPU": crowd[:3]}, "mAP")
