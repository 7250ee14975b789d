"""The example picture shows the best and the worst row, and is left out where something of it is gone."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images import cache, cache_writer
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.transforms import FAST, PREPARED_JPEG, PREPARED_RAW, REFERENCE
from mlrpl_bench.leaderboard.report import examples
from mlrpl_bench.leaderboard.report.examples import draw
from mlrpl_bench.leaderboard.report.page_data import methods
from tests.helpers.made_up_table import leaderboard
from tests.helpers.tiny_study import CATEGORIES, SETTING, labels_NC


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


@pytest.mark.parametrize("backend", [REFERENCE, FAST, PREPARED_JPEG, PREPARED_RAW])
def test_images_are_shown_as_the_network_saw_them(split, tmp_path, monkeypatch, backend):
    for number, path in enumerate(split.image_paths):
        pixels_HW3 = np.random.default_rng(number).integers(0, 256, size=(300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels_HW3).save(path, "jpeg")
    shown = {}
    monkeypatch.setattr(examples, "draw_examples", lambda images, *_: shown.update(images) or b"")
    setting = dataclasses.replace(SETTING, transform=backend)
    draw(leaderboard(tmp_path / "other", setting=setting), split)
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    view, paths, source = setting.view(), split.image_paths, None
    if view.is_prepared:
        source = cache_writer.prepare(split, cache.prepared_folder(split, view), backend, view.enlarged)
    for row, image in shown.items():
        seen = view.test(source[row] if source else decode(paths[row], view.decode_at_least))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(seen))
    assert len(shown) == examples.IMAGES


def test_without_the_images_there_is_no_picture(table, split):
    for path in split.image_paths:
        path.unlink()
    assert draw(table, split) == []


def test_a_damaged_file_is_no_obstacle(table, split):
    for of_place in table.cells.values():
        for evidence in of_place.values():
            (evidence.record.folder / "examples.npz").write_bytes(b"no zip")
    assert draw(table, split) == []
