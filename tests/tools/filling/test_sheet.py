"""Which entries the sheet shows."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.filling import sheet
from mlrpl_bench.tools.filling.fill_in import fill_in
from tests.helpers.simulated_scores import simulate
from tests.helpers.tiny_study import refusal


@pytest.fixture(scope="module")
def filling(tmp_path_factory):
    given = simulate(images=300, offsets=(0.0, -1.0, -1.0, 0.5, 1.0), slope=5.0)
    path = tmp_path_factory.mktemp("pictures") / "one.png"
    Image.new("RGB", (40, 20), "red").save(path)
    split = replace(given.split, image_paths=[path] * 300)
    return fill_in(split, given.mask_NC, given.logits_NC, 0.9)


def test_the_surest_and_the_most_doubtful_are_shown(filling):
    present, absent, doubtful = sheet.chosen(filling)
    values = [[float(filling.probabilities_NC[row, column]) for row, column, _ in kind] for kind in (present, absent)]
    assert values[0] == sorted(values[0], reverse=True) and values[0][0] == np.nanmax(filling.probabilities_NC)
    assert values[1] == sorted(values[1]) and values[1][0] == np.nanmin(filling.probabilities_NC)
    doubts = [abs(filling.probabilities_NC[row, column] - 0.5) for row, column, _ in doubtful]
    assert min(doubts) == np.nanmin(np.abs(filling.probabilities_NC - 0.5))


def test_what_is_rather_absent_is_not_among_the_surest_present_and_what_was_set_is_not_doubtful(filling):
    low = replace(filling, probabilities_NC=0.3 * filling.probabilities_NC)
    present, absent, doubtful = sheet.chosen(low)
    assert present == [] and absent
    decided = replace(filling, decisions_NC=np.where(filling.probabilities_NC > 0.45, PRESENT, UNKNOWN).astype(np.int8))
    *_, doubtful = sheet.chosen(decided)
    assert doubtful and all(decided.decisions_NC[row, column] == UNKNOWN for row, column, _ in doubtful)


def test_no_category_takes_all_the_places(filling):
    for kind in sheet.chosen(filling):
        columns = [column for _, column, _ in kind]
        assert len(kind) == sheet.SHOWN and max(map(columns.count, columns)) == sheet.OF_A_CATEGORY


def test_given_entries_are_not_shown(filling):
    for kind in sheet.chosen(filling):
        assert all(filling.split.labels_NC[row, column] == UNKNOWN for row, column, _ in kind)


def test_the_words_are_category_probability_and_decision(filling):
    ((row, column, kind), *_), _, _ = sheet.chosen(filling)
    words = sheet._words(filling, row, column, kind)
    assert words[0].text == filling.split.categories[column]
    assert words[1].text == f"{100 * filling.probabilities_NC[row, column]:.1f} %"
    texts = {PRESENT: "set present", ABSENT: "set absent", UNKNOWN: "left unknown"}
    assert words[2].text == texts[int(filling.decisions_NC[row, column])]


def test_a_certain_looking_probability_is_not_rounded_to_certainty(filling):
    nearly = replace(filling, probabilities_NC=np.full_like(filling.probabilities_NC, 0.99995))
    assert sheet._words(nearly, 0, 0, PRESENT)[1].text == "99.995 %"


def test_the_sheet_is_a_picture_of_all_of_them(filling):
    with Image.open(io.BytesIO(sheet.draw(filling, "a title"))) as picture:
        assert picture.format == "PNG" and picture.width > 1200 and picture.height > 6 * 300


def test_a_damaged_image_is_one_line(filling, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    spoilt = replace(filling, split=replace(filling.split, image_paths=[tmp_path / "bad.png"] * 300))
    assert "bad.png" in refusal(lambda: sheet.draw(spoilt, "a title"))
