"""The generated dataset: what it promises of its pictures, its labels and its files."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.data.word_vectors import hashed_vectors
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.utils.errors import UserError
from tests.helpers.places import ROOT

ENTRY = load_datasets()["scenes"]
scenes = sys.modules[ENTRY.cls.__module__]

FULL = scenes.SceneRecipe()
TINY = replace(FULL, images=(("train", 12), ("test", 6), ("iconic", 5)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder in which the tiny dataset has been generated."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.Scenes(recipe=TINY).load(root, "train")
    return root


@pytest.fixture(scope="module")
def full_labels():
    """The labels of the full train and test splits, as drawn, without the pictures: split -> list of category sets."""
    drawn = {}
    for split in ("train", "test"):
        generators = [
            np.random.default_rng(scenes.seed_of("scenes", split, index)) for index in range(dict(FULL.images)[split])
        ]
        drawn[split] = [set(scenes._scene_categories(rng, FULL)) for rng in generators]
    return drawn


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("split", "rows"), TINY.images)
def test_a_split_has_its_images_names_and_word_vectors(root, split, rows):
    loaded = scenes.Scenes(recipe=TINY).load(root, split)
    assert len(loaded) == rows
    assert loaded.categories[0] == "red zero" and loaded.categories[19] == "blue nine"
    assert (loaded.word_vectors_CE == hashed_vectors(loaded.categories)).all()
    side = TINY.iconic_px if split == "iconic" else TINY.canvas_px
    for path in loaded.image_paths:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (side, side))


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_the_labels_read_are_the_labels_drawn(root, split):
    loaded = scenes.Scenes(recipe=TINY).load(root, split)
    for index, labels_C in enumerate(loaded.labels_NC):
        _, things = scenes.draw(split, index, TINY)
        assert set(np.flatnonzero(labels_C == PRESENT)) == {thing.category for thing in things}


def test_the_pictures_on_disk_are_the_pictures_drawn(root):
    loaded = scenes.Scenes(recipe=TINY).load(root, "train")
    for index, path in enumerate(loaded.image_paths):
        drawn_HW3, _ = scenes.draw("train", index, TINY)
        difference_HW3 = np.asarray(Image.open(path)).astype(int) - drawn_HW3
        assert np.abs(difference_HW3).mean() < 8  # JPEG's loss, of 255


def test_generating_again_gives_the_same_bytes(root, tmp_path):
    scenes.Scenes(recipe=TINY).load(tmp_path, "test")
    first, second = files_below(root), files_below(tmp_path)
    assert len(first) == 12 + 6 + 5 + 3
    assert first == second


def test_a_picture_depends_on_its_place_alone():
    later_first = [scenes.draw("train", index, TINY)[0] for index in (3, 0)]
    in_order = [scenes.draw("train", index, TINY)[0] for index in (0, 3)]
    assert (later_first[0] == in_order[1]).all() and (later_first[1] == in_order[0]).all()
    assert (in_order[0] != in_order[1]).any()


def test_train_and_test_scenes_are_other_scenes():
    def categories(split):
        return [[thing.category for thing in scenes.draw(split, index, TINY)[1]] for index in range(8)]

    assert categories("train") != categories("test")


def test_another_recipe_goes_to_another_folder():
    recipes = [FULL, TINY, replace(FULL, noise=0.05), replace(FULL, version=FULL.version + 1)]
    assert len({recipe.hash() for recipe in recipes}) == 4
    assert scenes.SceneRecipe().hash() == FULL.hash()


def test_train_and_test_show_different_digits():
    """Pixel for pixel: no digit of one pool is in the other, and iconic pictures show none of the test digits."""
    pools = {split: {pixels_88.tobytes() for pixels_88 in scenes.digit_pool(split, FULL)[0]} for split in scenes.SPLITS}
    assert not pools["train"] & pools["test"]
    assert not pools["iconic"] & pools["test"]
    assert len(pools["train"]) + len(pools["test"]) == 1797


@pytest.mark.parametrize("split", ["train", "test", "iconic"])
def test_pictures_are_drawn_from_the_digits_of_their_split_only(split, monkeypatch):
    asked = set()
    pool = scenes.digit_pool
    monkeypatch.setattr(scenes, "digit_pool", lambda name, recipe: asked.add(name) or pool(name, recipe))
    scenes._pool_by_digit.cache_clear()
    scenes.draw(split, 0, TINY)
    assert asked == {split}


def test_every_digit_is_in_both_pools():
    for split in ("train", "test"):
        assert np.bincount(scenes.digit_pool(split, FULL)[1], minlength=10).min() >= 50


@pytest.mark.parametrize("split", ["train", "test"])
def test_scenes_have_about_2_8_labels(full_labels, split):
    assert np.mean([len(categories) for categories in full_labels[split]]) == pytest.approx(2.8, abs=0.12)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_category_is_in_some_scenes_and_not_in_others(full_labels, split):
    labels = full_labels[split]
    for category in range(len(scenes.CATEGORIES)):
        share = np.mean([category in categories for categories in labels])
        assert 0.05 < share < 0.3


def test_categories_occur_together_more_than_by_chance(full_labels):
    present_NC = np.array([[c in categories for c in range(20)] for categories in full_labels["train"]], dtype=float)
    together_CC = present_NC.T @ present_NC / len(present_NC)
    chance_CC = np.outer(present_NC.mean(0), present_NC.mean(0))
    lift_CC = together_CC / chance_CC
    pairs = ~np.eye(20, dtype=bool)
    assert (lift_CC[pairs] > 1.5).mean() > 0.1
    assert (lift_CC[pairs] < 0.67).mean() > 0.1


def test_an_iconic_picture_shows_one_object():
    assert all(len(scenes.draw("iconic", index, TINY)[1]) == 1 for index in range(20))


def test_every_object_can_be_seen():
    for index in range(60):
        for thing in scenes.draw("train", index, TINY)[1]:
            assert thing.seen_HW.sum() >= 15  # pixels


def test_of_two_objects_only_the_one_in_front_is_seen():
    for index in range(60):
        things = scenes.draw("train", index, TINY)[1]
        assert sum(thing.seen_HW.astype(int) for thing in things).max() == 1


def test_objects_are_placed_where_they_leave_the_others_visible():
    rng = np.random.default_rng(0)
    other = scenes.Box(4, 4, 30, 30)
    pixels_88 = scenes.digit_pool("train", FULL)[0][0]
    for _ in range(100):
        _, box = scenes._place(pixels_88, rng, FULL, [other])
        assert scenes._overlap(box, other) <= FULL.overlap
        assert box.left >= 0 and box.top >= 0 and box.right <= FULL.canvas_px and box.bottom <= FULL.canvas_px


def test_overlap_is_the_covered_share_of_the_smaller_box():
    assert scenes._overlap(scenes.Box(0, 0, 4, 4), scenes.Box(3, 2, 23, 22)) == pytest.approx(2 / 16)
    assert scenes._overlap(scenes.Box(0, 0, 4, 4), scenes.Box(5, 5, 9, 9)) == 0


def test_the_annotations_say_where_the_objects_are(root):
    content = scenes.json.loads((root / f"scenes-{TINY.hash()}" / "annotations" / "instances_train.json").read_text())
    assert len({entry["id"] for entry in content["annotations"]}) == len(content["annotations"])
    entries = iter(content["annotations"])
    for index in range(12):
        for thing in scenes.draw("train", index, TINY)[1]:
            entry = next(entries)
            left, top, width, height = entry["bbox"]
            inside_HW = np.zeros_like(thing.seen_HW)
            inside_HW[top : top + height, left : left + width] = True
            assert not (thing.seen_HW & ~inside_HW).any()
            assert thing.seen_HW[top].any() and thing.seen_HW[:, left].any()
            assert thing.seen_HW[top + height - 1].any() and thing.seen_HW[:, left + width - 1].any()
            assert entry["area"] == thing.seen_HW.sum()
            assert (entry["image_id"], entry["iscrowd"]) == (index + 1, 0)
            assert content["categories"][thing.category] == {
                "id": entry["category_id"],
                "name": scenes.CATEGORIES[thing.category],
                "supercategory": scenes.CATEGORIES[thing.category].split()[1],
            }


def test_red_is_red_and_blue_is_blue():
    """The mean colour of an object's pixels says which ink it has."""
    for index in range(40):
        canvas_HW3, [thing] = scenes.draw("iconic", index, TINY)
        red, _, blue = canvas_HW3[thing.seen_HW].mean(axis=0)
        assert (red > blue) == scenes.CATEGORIES[thing.category].startswith("red")


def test_labels_are_complete(root):
    assert set(np.unique(scenes.Scenes(recipe=TINY).load(root, "train").labels_NC)) == {ABSENT, PRESENT}


def test_an_unknown_split_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(UserError, match="no split 'val'; there are: train, test, iconic"):
        scenes.Scenes(recipe=TINY).load(tmp_path, "val")
    assert not list(tmp_path.iterdir())


TWO_AT_ONCE = """
import sys
import time
from dataclasses import replace
from pathlib import Path
from mlrpl_bench.models.registry import load_datasets

cls = load_datasets()["scenes"].cls
module = sys.modules[cls.__module__]
recipe = replace(module.SceneRecipe(), images=(("train", 12), ("test", 6), ("iconic", 5)))
build, root = module.generate, Path(sys.argv[1])

def generate_when_both_are_here(folder, recipe, report):
    # Each waits, with its building begun, until the other has begun too.
    (root / f"here-{sys.argv[2]}").touch()
    deadline = time.monotonic() + 60
    while len(list(root.glob("here-*"))) < 2:
        assert time.monotonic() < deadline, "the other process never came"
        time.sleep(0.01)
    build(folder, recipe, report)

module.generate = generate_when_both_are_here
print(cls(recipe=recipe).load(root, "train").fingerprint())
"""


def test_two_processes_at_once_leave_one_whole_folder(root, tmp_path):
    command = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, text=True) for name in "ab"]
    fingerprints = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert fingerprints == {scenes.Scenes(recipe=TINY).load(root, "train").fingerprint()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here-a", "here-b", f"scenes-{TINY.hash()}"]
    assert files_below(tmp_path / f"scenes-{TINY.hash()}") == files_below(root / f"scenes-{TINY.hash()}")
