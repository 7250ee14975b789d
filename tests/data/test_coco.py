"""COCO-format annotations: what is read, in which order, and what is refused."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from mlrpl_bench.data import coco
from mlrpl_bench.data.file_lists import missing_rows
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.utils.errors import UserError

REAL_SAMPLE = Path(os.environ.get("MLRPL_TEST_DATA", "/nonexistent")) / "coco2017-mini"


def small_content():
    """Ids in no order, gaps between category ids, one image without annotations, one crowd."""
    return {
        "images": [
            {"id": 30, "file_name": "c.jpg"},
            {"id": 10, "file_name": "z.jpg"},
            {"id": 20, "file_name": "a.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 20, "category_id": 90, "iscrowd": 0},
            {"id": 2, "image_id": 20, "category_id": 90, "iscrowd": 0},
            {"id": 3, "image_id": 30, "category_id": 2, "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "tree"}, {"id": 2, "name": "hot dog"}, {"id": 44, "name": "cat"}],
    }


@pytest.fixture
def content():
    return small_content()


@pytest.fixture
def read(tmp_path):
    """Read what a content, or a text, gives as an annotation file."""

    def read_content(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "instances.json").write_text(text)
        return coco.read(tmp_path / "instances.json", tmp_path / "images")

    return read_content


def test_rows_keep_the_order_of_the_file(read, content, tmp_path):
    split = read(content)
    assert list(split.ids) == [30, 10, 20]
    assert list(split.image_paths) == [tmp_path / "images" / name for name in ("c.jpg", "z.jpg", "a.jpg")]


def test_columns_are_the_category_ids_in_ascending_order_without_their_gaps(read, content):
    assert read(content).categories == ("hot dog", "cat", "tree")


def test_crowds_are_present_and_images_without_annotations_all_absent(read, content):
    expected = [[PRESENT, ABSENT, ABSENT], [ABSENT, ABSENT, ABSENT], [ABSENT, ABSENT, PRESENT]]
    labels_NC = read(content).labels_NC
    assert labels_NC.dtype == np.int8
    assert labels_NC.tolist() == expected


def test_a_file_without_any_annotation_is_all_absent(read, content):
    content["annotations"] = []
    assert (read(content).labels_NC == ABSENT).all()


def test_reading_prints_nothing(read, content, capsys):
    read(content)
    assert capsys.readouterr() == ("", "")


def test_what_is_written_is_read_back(tmp_path, content):
    file = tmp_path / "annotations" / "instances.json"
    coco.write(file, **content)
    assert json.loads(file.read_text()) == content
    split = coco.read(file, tmp_path)
    assert list(split.ids) == [30, 10, 20]
    assert (split.labels_NC == PRESENT).sum() == 2


def test_equal_content_is_written_as_equal_bytes(tmp_path, content):
    other_key_order = {name: [dict(reversed(entry.items())) for entry in entries] for name, entries in content.items()}
    coco.write(tmp_path / "a.json", **content)
    coco.write(tmp_path / "b.json", **other_key_order)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "none.json"))):
        coco.read(tmp_path / "none.json", tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "instances.json").write_bytes(b'{"images": "\xff\xd8"}')
    with pytest.raises(UserError, match="cut short or not JSON"):
        coco.read(tmp_path / "instances.json", tmp_path)


def changed(path, value):
    """The small content with the entry at `path` replaced."""
    content = small_content()
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


def without(*path):
    content = small_content()
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    del place[last]
    return content


BAD = {
    "cut short": (json.dumps(small_content())[:-40], "cut short or not JSON"),
    "empty file": ("", "cut short or not JSON"),
    "not JSON": ("id,name\n1,cat\n", "cut short or not JSON"),
    "a list": ("[]", "no COCO instances file"),
    "no images": (without("images"), "lacks 'images'"),
    "no annotations": (without("annotations"), "lacks 'annotations'"),
    "no categories": (without("categories"), "lacks 'categories'"),
    "images null": (changed(["images"], None), "no COCO instances file"),
    "annotations of another kind": (changed(["annotations"], {"a": 1}), "no COCO instances file"),
    "images empty": (changed(["images"], []), "no images"),
    "categories empty": (changed(["categories"], []), "no categories"),
    "image without file name": (without("images", 1, "file_name"), "lacks 'file_name'"),
    "file name a number": (changed(["images", 1, "file_name"], 7), "file name 7 is not text"),
    "category without name": (without("categories", 0, "name"), "lacks 'name'"),
    "category name a number": (changed(["categories", 0, "name"], 7), "category name 7 is not text"),
    "category ids of two kinds": (changed(["categories", 0, "id"], "x"), "no COCO instances file"),
    "annotation without image": (without("annotations", 1, "image_id"), "lacks 'image_id'"),
    "annotation without category": (without("annotations", 1, "category_id"), "lacks 'category_id'"),
    "unknown category": (changed(["annotations", 1, "category_id"], 3), "annotation 2 has the unknown category_id 3"),
    "unknown image": (changed(["annotations", 2, "image_id"], 31), "annotation 3 has the unknown image_id 31"),
    "image id twice": (changed(["images", 2, "id"], 30), "image id 30 twice"),
    "file name twice": (changed(["images", 2, "file_name"], "c.jpg"), "file name 'c.jpg' twice"),
    "category id twice": (changed(["categories", 2, "id"], 90), "category id 90 twice"),
    "category name twice": (changed(["categories", 2, "name"], "tree"), "category name 'tree' twice"),
    "file name leaves the folder": (changed(["images", 0, "file_name"], "../c.jpg"), r"outside .*'\.\./c\.jpg'"),
    "file name leaves from within": (changed(["images", 0, "file_name"], "a/../../c.jpg"), "outside"),
    "file name absolute": (changed(["images", 0, "file_name"], "/etc/c.jpg"), "outside"),
    "file name absolute on Windows": (changed(["images", 0, "file_name"], "C:\\c.jpg"), "outside"),
    "file name leaves on Windows": (changed(["images", 0, "file_name"], "..\\c.jpg"), "outside"),
    "file name empty": (changed(["images", 0, "file_name"], ""), "outside"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line_that_names_the_file(read, tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "instances.json") in str(caught.value)


def test_a_file_name_may_have_folders_and_dots(read, content):
    content["images"][0]["file_name"] = "train/a..b.jpg"
    assert read(content).image_paths[0].parts[-2:] == ("train", "a..b.jpg")


@pytest.mark.skipif(not REAL_SAMPLE.is_dir(), reason="MLRPL_TEST_DATA names no folder with coco2017-mini")
@pytest.mark.parametrize("part", ["train2017", "val2017"])
def test_real_coco_gives_the_labels_that_an_obvious_loop_gives(part):
    file = REAL_SAMPLE / "annotations" / f"instances_{part}.json"
    split = coco.read(file, REAL_SAMPLE / part)

    content = json.loads(file.read_text())
    category_ids = sorted(category["id"] for category in content["categories"])
    for row, image in enumerate(content["images"]):
        assert split.ids[row] == image["id"]
        assert split.image_paths[row].is_file()
        shown = {entry["category_id"] for entry in content["annotations"] if entry["image_id"] == image["id"]}
        for column, category_id in enumerate(category_ids):
            assert split.labels_NC[row, column] == (PRESENT if category_id in shown else ABSENT)
    assert len(split) == len(content["images"])
    assert split.categories[:2] == ("person", "bicycle")
    assert list(split.ids) != sorted(split.ids)


def test_reading_with_images_finds_them_and_leaves_missing_ones_to_others(tmp_path, content):
    (tmp_path / "instances.json").write_text(json.dumps(content))
    for name in ("c.jpg", "z.jpg"):
        (tmp_path / name).touch()
    split = coco.read_with_images(tmp_path / "instances.json", [tmp_path / "none", tmp_path])
    assert split.fingerprint() == coco.read(tmp_path / "instances.json", tmp_path).fingerprint()
    assert list(split.image_paths) == [tmp_path / name for name in ("c.jpg", "z.jpg", "a.jpg")]
    assert missing_rows(split.image_paths) == [2]


def lvis(folder, images, annotations=()):
    """A file as LVIS writes it, of the categories 3 (cat) and 7 (dog)."""
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", **facts} for k, facts in enumerate(images)],
        "annotations": [{"id": k, "image_id": i, "category_id": c} for k, (i, c) in enumerate(annotations)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = folder / "lvis.json"
    path.write_text(json.dumps(content))
    return path


def test_where_absent_categories_were_verified_the_others_are_unknown(tmp_path):
    images = [
        {"neg_category_ids": [7], "not_exhaustive_category_ids": []},
        {"neg_category_ids": [], "not_exhaustive_category_ids": [3]},
        {"neg_category_ids": [3, 7], "not_exhaustive_category_ids": []},
    ]
    path = lvis(tmp_path, images, [(0, 3), (1, 3)])
    assert coco.read(path, tmp_path).labels_NC.tolist() == [[PRESENT, ABSENT], [PRESENT, UNKNOWN], [ABSENT, ABSENT]]


def test_categories_whose_annotations_are_not_exhaustive_are_unknown_without_one(tmp_path):
    path = lvis(tmp_path, [{"not_exhaustive_category_ids": [3, 7]}, {}], [(0, 7)])
    assert coco.read(path, tmp_path).labels_NC.tolist() == [[UNKNOWN, PRESENT], [ABSENT, ABSENT]]


def test_an_image_without_a_file_name_is_found_by_its_address(tmp_path):
    path = lvis(tmp_path, [{}])
    content = json.loads(path.read_text())
    del content["images"][0]["file_name"]
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/000000000009.jpg"
    path.write_text(json.dumps(content))
    assert coco.read(path, tmp_path).image_paths == [tmp_path / "train2017/000000000009.jpg"]


@pytest.mark.parametrize(
    ("images", "annotations", "said"),
    [
        ([{"neg_category_ids": [7]}], [(0, 7)], "annotation 0 shows category 7 in image 0, whose neg_category_ids"),
        ([{"neg_category_ids": [7]}, {}], [], "image 1 has no neg_category_ids"),
        ([{"neg_category_ids": [8]}], [], "neg_category_ids of image 0 is no list of the categories' ids"),
        ([{"neg_category_ids": 7}], [], "neg_category_ids of image 0 is no list of the categories' ids"),
        ([{"neg_category_ids": [[7]]}], [], "neg_category_ids of image 0 is no list of the categories' ids"),
        ([{"not_exhaustive_category_ids": {"3": 1}}], [], "not_exhaustive_category_ids of image 0 is no list"),
    ],
)
def test_verified_absent_categories_that_contradict_or_are_none_are_refused(tmp_path, images, annotations, said):
    path = lvis(tmp_path, images, annotations)
    with pytest.raises(UserError) as error:
        coco.read(path, tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)
