"""COCO: which files it reads, where it looks for images, and what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mlrpl_bench.data.file_lists import missing_rows
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.utils.errors import UserError

ENTRY = load_datasets()["coco"]
REAL_SAMPLE = Path(os.environ.get("MLRPL_TEST_DATA", "/nonexistent")) / "coco2017-mini"


def dataset(**options):
    return ENTRY.cls(hyperparameters.make_instance(ENTRY.cls.Options, options, "coco"))


def part_of(part, year):
    """Three images in no order of ids; the last one has no annotation."""
    numbers = (9, 3, 7)
    return {
        "images": [{"id": number, "file_name": f"{part}{year}_{number}.jpg"} for number in numbers],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 44, "iscrowd": 1},
            {"id": 2, "image_id": 3, "category_id": 2, "iscrowd": 0},
        ],
        "categories": [{"id": 44, "name": "bottle"}, {"id": 2, "name": "bicycle"}],
    }


def make(root, year="2014", below="{part}{year}"):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        content = part_of(part, year)
        (root / "annotations" / f"instances_{part}{year}.json").write_text(json.dumps(content))
        folder = root / below.format(part=part, year=year)
        folder.mkdir(parents=True, exist_ok=True)
        for image in content["images"]:
            (folder / image["file_name"]).touch()
    return root


def refused(root, split="train", **options):
    with pytest.raises(UserError) as caught:
        dataset(**options).load(root, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("split", "part"), [("train", "train"), ("test", "val")])
@pytest.mark.parametrize("year", ["2014", "2017"])
def test_train_is_the_train_part_and_test_the_validation_part(tmp_path, split, part, year):
    loaded = dataset(year=year).load(make(tmp_path, year), split)
    assert list(loaded.ids) == [9, 3, 7]
    assert list(loaded.image_paths) == [tmp_path / f"{part}{year}" / f"{part}{year}_{n}.jpg" for n in (9, 3, 7)]
    assert loaded.categories == ("bicycle", "bottle")
    assert loaded.labels_NC.tolist() == [[ABSENT, PRESENT], [PRESENT, ABSENT], [ABSENT, ABSENT]]


def test_the_year_is_2014_unless_asked():
    assert dataset().year == "2014"


@pytest.mark.parametrize("below", ["{part}{year}", "images/{part}{year}", "images", "."])
def test_images_are_found_in_each_usual_place(tmp_path, below):
    loaded = dataset().load(make(tmp_path, below=below), "test")
    assert len(loaded) == 3 and all(path.is_file() for path in loaded.image_paths)


def test_what_is_expected_goes_with_the_year():
    assert dataset().expected_counts == {"train": 82_783, "test": 40_504}
    assert dataset(year="2017").expected_counts == {"train": 118_287, "test": 5_000}
    assert "instances_train2014.json" in dataset().expected_files
    assert "2014" not in dataset(year="2017").expected_files


def test_a_missing_folder_is_named(tmp_path):
    assert f"no folder {tmp_path / 'none'}" in refused(tmp_path / "none")


def test_a_folder_without_annotations_is_told_what_to_download(tmp_path):
    assert "annotations_trainval2014.zip" in refused(tmp_path)


@pytest.mark.parametrize(("there", "asked"), [("2017", "2014"), ("2014", "2017")])
def test_another_year_is_named_with_the_option_that_selects_it(tmp_path, there, asked):
    assert f"--set-data year={there}" in refused(make(tmp_path, there), year=asked)


def test_missing_images_keep_their_rows_and_get_the_place_where_they_should_be(tmp_path):
    make(tmp_path, below="images/{part}{year}")
    whole = dataset().load(tmp_path, "train")
    for number in (7, 3):
        (tmp_path / "images" / "train2014" / f"train2014_{number}.jpg").unlink()
    loaded = dataset().load(tmp_path, "train")
    assert loaded.image_paths == whole.image_paths and loaded.fingerprint() == whole.fingerprint()
    assert missing_rows(loaded.image_paths) == [1, 2]


def test_no_image_folder_at_all_is_all_images_missing(tmp_path):
    make(tmp_path)
    (tmp_path / "val2014").rename(tmp_path / "elsewhere")
    loaded = dataset().load(tmp_path, "test")
    assert missing_rows(loaded.image_paths) == [0, 1, 2] and loaded.image_paths[0].parent == tmp_path / "val2014"


def test_annotations_cut_short_are_named(tmp_path):
    file = make(tmp_path) / "annotations" / "instances_train2014.json"
    file.write_text(file.read_text()[:-9])
    assert str(file) in refused(tmp_path) and "cut short" in refused(tmp_path)


def test_an_image_outside_the_root_is_refused_though_it_exists(tmp_path):
    root = make(tmp_path / "root")
    (tmp_path / "secret.jpg").touch()
    file = root / "annotations" / "instances_train2014.json"
    file.write_text(file.read_text().replace("train2014_3.jpg", "../../secret.jpg"))
    assert "outside" in refused(root)


def test_another_split_is_refused(tmp_path):
    assert "train, test" in refused(make(tmp_path), "val")


@pytest.mark.skipif(not REAL_SAMPLE.is_dir(), reason="MLRPL_TEST_DATA names no folder with coco2017-mini")
@pytest.mark.parametrize(("split", "part"), [("train", "train2017"), ("test", "val2017")])
def test_real_coco_gives_the_labels_that_an_obvious_loop_gives(split, part):
    loaded = dataset(year="2017").load(REAL_SAMPLE, split)
    content = json.loads((REAL_SAMPLE / "annotations" / f"instances_{part}.json").read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    expected_NC = np.full((len(content["images"]), len(categories)), ABSENT)
    for row, image in enumerate(content["images"]):
        for column, category in enumerate(categories):
            for entry in content["annotations"]:
                if (entry["image_id"], entry["category_id"]) == (image["id"], category["id"]):
                    expected_NC[row, column] = PRESENT
    assert (loaded.labels_NC == expected_NC).all()
    assert [path.name for path in loaded.image_paths] == [image["file_name"] for image in content["images"]]
    assert all(path.is_file() for path in loaded.image_paths)
    assert loaded.categories == tuple(category["name"] for category in categories)
