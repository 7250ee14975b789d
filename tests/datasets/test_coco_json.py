"""A user's own images with COCO-format annotations: the paths, and what both splits must agree on."""

import json

import pytest

from mlrpl_bench.api import tuned
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.training.study import Options, Study
from mlrpl_bench.utils.errors import UserError

ENTRY = load_datasets()["coco_json"]


def dataset(**options):
    return ENTRY.cls(hyperparameters.make_instance(ENTRY.cls.Options, options, "coco_json"))


def write(annotation_file, image_folder, names, categories=("cat", "dog")):
    """Image k shows category k; further images show nothing."""
    for folder in (annotation_file.parent, image_folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (image_folder / name).touch()
    content = {
        "images": [{"id": row, "file_name": name} for row, name in enumerate(names)],
        "annotations": [{"id": k, "image_id": k, "category_id": k} for k in range(min(len(categories), len(names)))],
        "categories": [{"id": place, "name": name} for place, name in enumerate(categories)],
    }
    annotation_file.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "annotations" / "instances_train.json", tmp_path / "train", ["c.jpg", "a.jpg", "b.jpg"])
    write(tmp_path / "annotations" / "instances_test.json", tmp_path / "test", ["a.jpg", "z.jpg"])
    return tmp_path


def refused(root, split, **options):
    with pytest.raises(UserError) as caught:
        dataset(**options).load(root, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_options_the_usual_paths_are_read(root):
    train, test = (dataset().load(root, split) for split in ("train", "test"))
    assert list(train.image_paths) == [root / "train" / name for name in ("c.jpg", "a.jpg", "b.jpg")]
    assert train.labels_NC.tolist() == [[PRESENT, ABSENT], [ABSENT, PRESENT], [ABSENT, ABSENT]]
    assert list(test.image_paths) == [root / "test" / name for name in ("a.jpg", "z.jpg")]
    assert train.categories == test.categories == ("cat", "dog")


def test_paths_may_be_relative_to_the_root_or_absolute_and_share_a_folder(root):
    write(root / "labels" / "one.json", root / "all", ["1.jpg", "2.jpg"])
    write(root / "labels" / "two.json", root / "all", ["3.jpg", "4.jpg"])
    options = {
        "train_annotations": "labels/one.json",
        "train_images": "all",
        "test_annotations": str(root / "labels" / "two.json"),
        "test_images": str(root / "all"),
    }
    assert [path.name for path in dataset(**options).load(root, "train").image_paths] == ["1.jpg", "2.jpg"]
    assert [path.name for path in dataset(**options).load(root, "test").image_paths] == ["3.jpg", "4.jpg"]


@pytest.mark.parametrize("option", ["train_annotations", "train_images", "test_annotations", "test_images"])
def test_a_missing_path_is_named_with_its_option(root, option):
    message = refused(root, option.partition("_")[0], **{option: "nowhere"})
    assert str(root / "nowhere") in message and f"--set-data {option}=" in message


def test_a_missing_image_keeps_its_row(root):
    whole = dataset().load(root, "train")
    (root / "train" / "a.jpg").unlink()
    assert dataset().load(root, "train").image_paths == whole.image_paths


@pytest.mark.parametrize(
    ("categories", "difference"), [(("cat", "cow"), "cow"), (("dog", "cat"), "their order"), (("cat",), "dog")]
)
def test_both_splits_must_have_the_same_categories(root, categories, difference):
    write(root / "annotations" / "instances_test.json", root / "test", ["a.jpg", "z.jpg"], categories)
    assert f"first difference: {difference}" in refused(root, "test")


def test_an_image_of_the_training_split_cannot_be_tested_on(root):
    message = refused(root, "test", test_annotations="annotations/instances_train.json", test_images="./test/../train")
    assert "3 images of the training split" in message and "c.jpg" in message


def test_equal_names_in_two_folders_are_two_images(root):
    assert "a.jpg" in {path.name for path in dataset().load(root, "test").image_paths}


def test_a_name_must_stay_in_its_folder(root):
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("c.jpg", "../test/a.jpg"))
    assert "outside" in refused(root, "train")


def test_another_split_is_refused(root):
    assert "train, test" in refused(root, "val")


def test_moved_files_are_the_same_setting_and_other_images_are_not(root):
    for place in ("here", "there"):
        write(root / place / "one.json", root / place, [f"{number}.jpg" for number in range(6)], "abcdef")
        write(root / place / "two.json", root / place, ["6.jpg", "7.jpg"], "abcdef")

    def study(place, evaluate_on="test"):
        paths = {"train_annotations": "one.json", "train_images": "", "test_annotations": "two.json", "test_images": ""}
        data = {option: f"{place}/{name}" for option, name in paths.items()}
        return Study(ENTRY, Options(data_root=root, data=data, weights="random", batch=2, evaluate_on=evaluate_on))

    here, there = study("here"), study("there")
    assert here.setting == there.setting and here.variant() == there.variant()
    assert "dataset option train_annotations=there/one.json" in there.deviations()
    validation = study("here", "val")
    assert here.variant(whichever_images=True) == validation.variant(whichever_images=True)
    assert tuned.facts_of(here) == tuned.facts_of(validation) and here.variant() != validation.variant()
    for name, is_trained_on in (("7.jpg", False), ("1.jpg", True)):
        (root / "there" / name).write_bytes(b"another picture")
        changed = study("there")
        assert changed.setting != here.setting and changed.variant() != here.variant()
        assert (tuned.facts_of(changed) != tuned.facts_of(here)) == is_trained_on
