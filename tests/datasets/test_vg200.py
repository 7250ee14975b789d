"""VG-200: the reference's files as they are, and the other one that is rebuilt from objects.json."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mlrpl_bench.data.file_lists import missing_rows
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.utils.errors import UserError

DATASETS = load_datasets()
vg200 = sys.modules[DATASETS["vg200"].cls.__module__]
REAL_LISTS = Path(os.environ.get("MLRPL_TEST_DATA", "/nonexistent")) / "vg"

LABELS_200 = "vg_category_200_labels_index.json"
LABELS_500 = "vg_category_500_labels_index.json"


def refused(root, split="train", name="vg200"):
    with pytest.raises(UserError) as caught:
        DATASETS[name].cls().load(root, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load(root, split="train", name="vg200"):
    return DATASETS[name].cls().load(root, split)


@pytest.fixture
def root(tmp_path):
    """Three training images across both folders, the last line without a line break; one test image."""
    (tmp_path / "train_list_500.txt").write_text("30.jpg\n10.jpg\n20.jpg")
    (tmp_path / "test_list_500.txt").write_text("5.jpg\n")
    (tmp_path / LABELS_200).write_text(json.dumps({"10.jpg": [0, 199], "20.jpg": [], "30.jpg": [7, 7], "5.jpg": [1]}))
    for folder, names in (("VG_100K", ("10", "5")), ("VG_100K_2", ("30", "20"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.jpg").touch()
    return tmp_path


def present(split):
    return [set(np.flatnonzero(labels_C == PRESENT)) for labels_C in split.labels_NC]


def test_rows_keep_the_order_of_the_list_and_a_last_line_needs_no_break(root):
    loaded = load(root)
    assert list(loaded.ids) == ["30.jpg", "10.jpg", "20.jpg"]
    assert [path.parent.name for path in loaded.image_paths] == ["VG_100K_2", "VG_100K", "VG_100K_2"]
    assert present(loaded) == [{7}, {0, 199}, set()]
    assert set(loaded.labels_NC[2]) == {ABSENT} and loaded.labels_NC.shape == (3, 200)


def test_the_test_list_is_the_test_split(root):
    assert list(load(root, "test").ids) == ["5.jpg"] and present(load(root, "test")) == [{1}]


def test_images_may_lie_merged_in_one_folder_or_below_images(root):
    for path in (root / "VG_100K_2").iterdir():
        path.rename(root / "VG_100K" / path.name)
    (root / "images").mkdir()
    assert len(load(root)) == 3
    (root / "VG_100K").rename(root / "images" / "VG_100K")
    assert len(load(root)) == 3


def test_the_labels_of_500_categories_are_cut_to_the_first_200(root):
    (root / LABELS_200).unlink()
    (root / LABELS_500).write_text(json.dumps({"10.jpg": [199, 200, 499], "20.jpg": [3], "30.jpg": [450]}))
    assert present(load(root)) == [set(), {199}, {3}]


def test_the_labels_of_200_categories_come_first_where_both_are_there(root):
    (root / LABELS_500).write_text("{}")
    assert present(load(root))[0] == {7}


def test_categories_are_numbered_unless_a_file_names_them(root):
    assert load(root).categories[:2] == ("category 0", "category 1") and load(root).categories[-1] == "category 199"
    names = [f"thing {index}" for index in range(200)]
    (root / "vg_category_200_names.txt").write_text("\n".join(names))
    assert load(root).categories == tuple(names)


@pytest.mark.parametrize("names", [["a"] * 200, [str(index) for index in range(199)]])
def test_names_must_be_200_different_ones(root, names):
    (root / "vg_category_200_names.txt").write_text("\n".join(names))
    assert "vg_category_200_names.txt" in refused(root)


@pytest.mark.parametrize(
    ("file", "index"), [(LABELS_200, 200), (LABELS_200, -1), (LABELS_500, 500), (LABELS_200, "3"), (LABELS_200, True)]
)
def test_an_index_out_of_range_is_refused(root, file, index):
    (root / LABELS_200).unlink()
    (root / file).write_text(json.dumps({"10.jpg": [0], "20.jpg": [1, index], "30.jpg": [2]}))
    assert file in refused(root) and f"category {index!r} for 20.jpg" in refused(root)


BAD_LABELS = {
    "cut short": ('{"10.jpg": [0', "cut short"),
    "a list": ("[]", "does not map"),
    "no list of indices": ('{"30.jpg": 5}', "no list of categories for 30.jpg"),
    "an image missing": ('{"10.jpg": [0]}', "no labels for 30.jpg"),
    "an image twice": ('{"30.jpg": [0], "30.jpg": [1]}', "'30.jpg' twice"),
}


@pytest.mark.parametrize(("text", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels_are_refused_by_name(root, text, message):
    (root / LABELS_200).write_text(text)
    assert message in refused(root) and LABELS_200 in refused(root)


BAD_LISTS = {
    "twice": ("10.jpg\n20.jpg\n10.jpg\n", "'10.jpg' twice"),
    "twice by another name": ("10.jpg\n20.jpg\n./10.jpg\n", "10.jpg' twice"),
    "outside": ("../10.jpg\n", "outside"),
    "empty": ("", "no names"),
}


@pytest.mark.parametrize(("text", "message"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_bad_list_is_refused_by_name(root, text, message):
    (root / "train_list_500.txt").write_text(text)
    assert message in refused(root) and "train_list_500.txt" in refused(root)


def test_a_missing_image_keeps_its_row(root):
    (root / "VG_100K_2" / "20.jpg").unlink()
    loaded = load(root)
    assert list(loaded.ids) == ["30.jpg", "10.jpg", "20.jpg"] and missing_rows(loaded.image_paths) == [2]


def test_a_test_image_that_is_trained_on_is_refused(root):
    (root / "test_list_500.txt").write_text("5.jpg\n20.jpg\n30.jpg\n")
    message = refused(root, "test")
    assert "test_list_500.txt has 2 images of" in message and "train_list_500.txt, the first is 20.jpg" in message
    load(root, "train")


@pytest.mark.parametrize("file", ["train_list_500.txt", LABELS_200])
def test_a_missing_file_is_named(root, file):
    (root / file).unlink()
    assert file in refused(root)


@pytest.mark.parametrize("name", ["vg200", "vg200_rebuilt"])
def test_another_split_is_refused(root, name):
    assert "train, test" in refused(root, "val", name)


@pytest.mark.skipif(not REAL_LISTS.is_dir(), reason="MLRPL_TEST_DATA names no folder with vg")
def test_the_real_lists_have_the_expected_counts_and_share_no_image(tmp_path):
    (tmp_path / "VG_100K").mkdir()
    ids = {}
    for split in ("train", "test"):
        lines = (REAL_LISTS / f"{split}_list_500.txt").read_bytes().split(b"\n")
        names = [line.decode() for line in lines if line]
        (tmp_path / f"{split}_list_500.txt").write_text("\n".join(names))
        ids[split] = vg200.read_list(tmp_path / f"{split}_list_500.txt")
        assert ids[split] == names and len(names) == vg200.VG200.expected_counts[split]
    assert not set(ids["train"]) & set(ids["test"])


# rebuilt

IMAGES = 40


def scene(identity, names):
    return {"image_id": identity, "objects": [{"object_id": 1, "names": [name], "x": 0} for name in names]}


def scenes():
    """Ids in descending order; every image shows a few of 250 names, low numbers more often than high ones."""
    rng = np.random.default_rng(0)
    return [
        scene(identity, [f"name  {number:03d} ".upper() for number in rng.integers(0, 250, (2, 40)).min(axis=0)])
        for identity in range(3 * IMAGES, 0, -3)
    ]


@pytest.fixture
def visual_genome(tmp_path, monkeypatch):
    monkeypatch.setattr(vg200, "TEST_IMAGES", 10)
    (tmp_path / "VG_100K_2").mkdir()
    for identity in range(3, 3 * IMAGES + 1, 3):
        (tmp_path / "VG_100K_2" / f"{identity}.jpg").touch()
    (tmp_path / "objects.json").write_text(json.dumps(scenes()))
    return tmp_path


def test_rebuilt_categories_and_labels_are_those_of_an_obvious_loop(visual_genome):
    shown = {image["image_id"]: set() for image in scenes()}
    for image in scenes():
        for entry in image["objects"]:
            shown[image["image_id"]].add(entry["names"][0].strip().lower().replace("  ", " "))
    names = sorted({name for some in shown.values() for name in some})
    names.sort(key=lambda name: sum(name in some for some in shown.values()), reverse=True)  # stable: ties by name
    for split in ("train", "test"):
        loaded = load(visual_genome, split, "vg200_rebuilt")
        assert list(loaded.categories) == names[:200]
        for row, identity in enumerate(loaded.ids):
            found = {loaded.categories[column] for column in np.flatnonzero(loaded.labels_NC[row] == PRESENT)}
            assert found == shown[identity] & set(names[:200])


def test_the_rebuilt_test_split_is_the_start_of_a_seeded_shuffle_of_ascending_ids(visual_genome):
    train, test = (load(visual_genome, split, "vg200_rebuilt") for split in ("train", "test"))
    ids = list(range(3, 3 * IMAGES + 1, 3))
    np.random.seed(0)
    expected = sorted(np.random.permutation(ids)[:10].tolist())
    assert list(test.ids) == expected
    assert list(train.ids) == [identity for identity in ids if identity not in expected]
    assert [path.name for path in test.image_paths] == [f"{identity}.jpg" for identity in expected]


def test_objects_are_read_again_when_the_file_changes(visual_genome):
    before = load(visual_genome, "train", "vg200_rebuilt").fingerprint()
    changed = [scene(image["image_id"], [f"other {k}" for k in range(210)]) for image in scenes()]
    (visual_genome / "objects.json").write_text(json.dumps(changed))
    assert load(visual_genome, "train", "vg200_rebuilt").fingerprint() != before


BAD_OBJECTS = {
    "cut short": (json.dumps(scenes())[:-7], "cut short"),
    "no list": ("7", "no list of images"),
    "no ids": ('[{"objects": []}]', "'image_id'"),
    "ids are text": ('[{"image_id": "1", "objects": []}]', "'1' is no number"),
    "no objects": ('[{"image_id": 1}]', "'objects'"),
    "objects without names": ('[{"image_id": 1, "objects": [{"x": 1}]}]', "no list of images"),
    "names are numbers": ('[{"image_id": 1, "objects": [{"names": [1]}]}]', "no list of images"),
    "an image twice": (json.dumps([scene(3, ["a"]), scene(3, ["b"])]), "image 3 twice"),
    "too few names": (json.dumps([scene(3, ["a"])]), "1 names"),
    "too few images": (json.dumps([scene(k, map(str, range(200))) for k in range(10)]), "10 images"),
}


@pytest.mark.parametrize(("text", "message"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_bad_objects_are_refused_by_name(visual_genome, text, message):
    (visual_genome / "objects.json").write_text(text)
    shown = refused(visual_genome, "train", "vg200_rebuilt")
    assert message in shown and "objects.json" in shown


def test_a_missing_image_keeps_its_row_and_a_missing_file_is_named(visual_genome):
    whole = load(visual_genome, "train", "vg200_rebuilt")
    whole.image_paths[4].unlink()
    assert missing_rows(load(visual_genome, "train", "vg200_rebuilt").image_paths) == [4]
    (visual_genome / "objects.json").unlink()
    assert "objects.json" in refused(visual_genome, "train", "vg200_rebuilt")
