"""The sheet shows the chosen images with their labels; names say what is known by colour, line and question mark."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.inspection import contact_sheet
from mlrpl_bench.tools.inspection.contact_sheet import GREEN, GREY, ORANGE, SIDE, Word
from mlrpl_bench.utils.errors import UserError
from tests.helpers.made_up_labels import draw, labels, split, truncate

NAMES = ("a", "b", "c", "d", "e")
STATES = np.array([PRESENT, PRESENT, ABSENT, ABSENT, UNKNOWN], dtype=np.int8)
KNOWN = np.array([True, False, True, False, True])


@pytest.fixture
def made(tmp_path):
    whole = split(labels(9, 5), tmp_path)
    for row, path in enumerate(whole.image_paths):
        Image.new("RGB", (30, 20), (200, 10 * row, 0)).save(path, quality=95)
    return whole


def sheet(*arguments) -> Image.Image:
    return Image.open(io.BytesIO(contact_sheet.draw(*arguments)))


def test_every_label_of_few_is_named_with_its_state():
    assert contact_sheet.words_of(STATES, KNOWN, NAMES) == [
        Word("a", GREEN),
        Word("b?", ORANGE),
        Word("c", GREY, struck=True),
        Word("d?", GREY),
        Word("1 never given", contact_sheet.BLACK),
    ]


def test_absent_labels_of_many_are_counted():
    many = contact_sheet.MANY
    states = np.concatenate([STATES, np.full(many, ABSENT, dtype=np.int8)])
    names = (*NAMES, *(f"x{number}" for number in range(many)))
    words = contact_sheet.words_of(states, np.concatenate([KNOWN, np.ones(many, dtype=bool)]), names)
    assert [word.text for word in words] == [
        "a",
        "b?",
        f"{many + 1} known absent",
        "1 absent, hidden",
        "1 never given",
    ]


@pytest.mark.parametrize(("images", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (100, 4, 3)])
def test_the_sheet_has_room_for_every_image(made, images, columns, rows):
    width, height = sheet(made, "title", 0.5, images).size
    assert width == contact_sheet.GAP + columns * (SIDE + contact_sheet.GAP)
    assert rows * SIDE < height < rows * (SIDE + 150) + 100


def test_the_chosen_images_are_on_it_in_their_proportions(made):
    pixels_HW3 = np.asarray(sheet(made, "title", 0.5, 4)).astype(int)
    for row in contact_sheet.chosen_rows(9, 4, 0):
        shown = np.abs(pixels_HW3 - (200, 10 * row, 0)).max(2) <= 4
        assert shown.sum() == pytest.approx(SIDE * SIDE * 2 / 3, rel=0.02)


def test_names_are_in_their_colours(made):
    pixels_HW3 = np.asarray(sheet(made, "", 0.5, 9))
    for colour in (GREEN, ORANGE, GREY):
        value = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels_HW3 == value).all(2).sum() > 20


def test_another_seed_is_another_choice_and_the_same_seed_the_same_sheet(made):
    assert contact_sheet.draw(made, "t", 0.5, 4) == contact_sheet.draw(made, "t", 0.5, 4)
    assert contact_sheet.chosen_rows(100, 4, 0) != contact_sheet.chosen_rows(100, 4, 1)
    assert contact_sheet.chosen_rows(3, 12, 0) == [0, 1, 2]


def test_a_damaged_image_is_one_clear_line(made):
    truncate(draw(made.image_paths[0]))
    with pytest.raises(UserError, match=r"train0\.jpg cannot be decoded"):
        contact_sheet.draw(made, "t", 0.5, 9)


def test_long_names_stay_inside():
    lines = contact_sheet._lines([Word("w" * 200, GREEN), Word("short", GREY)], SIDE)
    assert all(contact_sheet._length(word.text) <= SIDE for line in lines for word in line)
    assert len(lines) == 2


def test_an_image_whose_id_is_its_path_is_named_once():
    paths = [Path("root/train/1.jpg"), Path("root/2.jpg")]
    images = Split(["train/1.jpg", "17"], paths, labels(2, 1), ("cat",))
    assert [contact_sheet._caption(images, row) for row in (0, 1)] == ["train/1.jpg", "17  2.jpg"]
