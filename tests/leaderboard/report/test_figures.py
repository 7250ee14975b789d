"""Figures are whole, the same each time, and there is none of nothing; how they look is for eyes."""

import io
import re
import warnings
from xml.etree import ElementTree

import pytest
from PIL import Image

from mlrpl_bench.leaderboard.report.figures import draw_all
from mlrpl_bench.leaderboard.tables.main import Context, build
from tests.helpers.made_up_table import HOSTILE, leaderboard

NAMES = ("map-by-ratio", "recovery-by-ratio", "losses", "scalars", "categories")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return leaderboard(tmp_path_factory.mktemp("records"), ["plain", HOSTILE.replace("/", "|"), "_under", "$x$"])


@pytest.fixture(scope="module")
def figures(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return draw_all(table, ["plain"])


def test_every_figure_is_there_twice(figures):
    assert set(figures) == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}


def test_the_same_records_give_the_same_bytes(table, figures):
    assert draw_all(table, ["plain"]) == figures


@pytest.mark.parametrize("name", NAMES)
def test_files_are_whole_and_undated(figures, name):
    image = Image.open(io.BytesIO(figures[f"{name}.png"]))
    image.load()
    assert set(image.info) <= {"dpi"}
    ElementTree.fromstring(figures[f"{name}.svg"])
    assert not re.search(rb"<dc:date|20\d\d-\d\d-\d\d|<script", figures[f"{name}.svg"])


@pytest.mark.filterwarnings("error::UserWarning")
def test_long_names_and_emoji_spoil_no_figure(tmp_path):
    names = ("a very long name of a category " * 5, "🦊", "猫", "x$y$")
    drawn = draw_all(leaderboard(tmp_path, ["a", "b"], names))["categories.svg"].decode()
    assert "a very long name of a category a very" not in drawn and "🦊" not in drawn
    assert "□ #2" in drawn and "□ #3" in drawn and "stands for what the font lacks" in drawn


def test_without_numbers_there_is_no_figure():
    assert draw_all(build({}, ["a"], [0.1], Context(), {})) == {}
