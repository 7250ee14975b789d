"""A check says what is missing, what is damaged and what is merely unusual; it is ok only where a run would succeed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlrpl_bench.data.dataset import Dataset, Preset
from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.tools.inspection import checking, findings_text
from mlrpl_bench.utils.errors import UserError
from tests.helpers.made_up_labels import Folder, draw, fill, labels, split, truncate


def test_a_whole_folder_is_ok(tmp_path):
    told = []
    findings = checking.check(Folder(), fill(tmp_path), workers=0, report=lambda *words: told.append(words))
    assert findings.ok and findings.obstacles == [] and findings.warnings == []
    assert [(one.name, one.images, one.expected, one.inspected) for one in findings.splits] == [
        ("train", 6, 6, 6),
        ("test", 4, 4, 4),
    ]
    assert ("decoding train images", 6, 6) in told
    assert "labels.txt" in findings.there and findings.to_json()["ok"]


def test_a_missing_folder_is_a_finding_with_the_expected_tree(tmp_path):
    findings = checking.check(Folder(), tmp_path / "gone")
    assert not findings.ok and "is not a folder" in findings.splits[0].problem
    assert findings.expected_files == Folder.expected_files and findings.there == []


def test_a_split_that_cannot_be_loaded_is_a_finding(tmp_path):
    findings = checking.check(Folder(), tmp_path, workers=0)
    assert [bool(one.problem) for one in findings.splits] == [True, True] and not findings.ok


def test_damaged_and_missing_images_are_named_with_the_reason(tmp_path):
    root = fill(tmp_path)
    truncate(root / "train2.jpg")
    (root / "test1.jpg").write_text("no image")
    (root / "test3.jpg").unlink()
    train, test = checking.check(Folder(), root, workers=0).splits
    assert [path.name for path, _ in train.broken["truncated"]] == ["train2.jpg"] and not train.ok
    assert [path.name for path, _ in test.broken["unreadable"]] == ["test1.jpg"] and not test.ok
    assert [path.name for path in test.missing] == ["test3.jpg"] and test.inspected == 3
    assert train.broken["truncated"][0][1] != ""
    json.dumps(checking.check(Folder(), root, workers=0).to_json())


def test_unusual_images_are_named_and_ok(tmp_path):
    root = fill(tmp_path)
    draw(root / "train0.jpg", "L")
    draw(root / "train1.jpg", "CMYK")
    draw(root / "train2.jpg", "RGB", format="PNG")
    draw(root / "train3.jpg", "P", format="GIF")
    findings = checking.check(Folder(), root, workers=0)
    named = {kind: [path.name for path, _ in files] for kind, files in findings.splits[0].unusual.items()}
    assert named["grey"] == ["train0.jpg"] and named["CMYK"] == ["train1.jpg"]
    assert named["mislabelled"] == ["train2.jpg", "train3.jpg"] and findings.ok


def test_processes_find_what_one_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "IN_THIS_PROCESS", 0)
    root = fill(tmp_path)
    truncate(root / "train2.jpg")
    assert checking.check(Folder(), root, workers=2).to_json() == checking.check(Folder(), root, workers=0).to_json()


def test_other_numbers_than_expected_are_a_warning_with_both(tmp_path):
    class Other(Folder):
        expected_counts = {"train": 82_783}  # noqa: RUF012

    findings = checking.check(Other(), fill(tmp_path), workers=0)
    (warning,) = findings.warnings
    assert "6" in warning and "82,783" in warning and findings.ok


def of_labels(train_NC, test_NC, root, same_images: bool = False):
    class Made(Dataset):
        def load(self, root, name):
            return split(train_NC if name == "train" else test_NC, root, "train" if same_images else name)

    for name, labels_NC in (("train", train_NC), ("test", test_NC)):
        for row in range(len(labels_NC)):
            draw(root / f"{name}{row}.jpg")
    return checking.check(Made(), root, workers=0)


def test_categories_that_differ_are_an_obstacle(tmp_path):
    findings = of_labels(labels(3, 2, 0.9), labels(3, 4, 0.9), tmp_path)
    assert "different categories" in findings.obstacles[0] and not findings.ok


def test_an_image_in_both_splits_and_a_category_without_images_are_warnings(tmp_path):
    train_NC = np.full((3, 2), PRESENT, dtype=np.int8)
    train_NC[:, 1] = -PRESENT
    findings = of_labels(train_NC, np.full((2, 2), PRESENT, dtype=np.int8), tmp_path, same_images=True)
    assert findings.ok and len(findings.warnings) == 2
    assert "thing 1" in findings.warnings[0] and findings.warnings[1].startswith("2 images are in train and in test")


def test_a_split_without_images_is_not_ok(tmp_path):
    assert not of_labels(labels(3, 2), np.zeros((0, 2), dtype=np.int8), tmp_path).ok


def test_a_sample_is_always_the_same_and_in_order(tmp_path):
    paths = split(labels(1000, 2)).image_paths
    chosen = checking.sample(paths, "train")
    assert len(set(chosen)) == checking.SAMPLE and chosen == checking.sample(paths, "train")
    assert chosen == [path for path in paths if path in set(chosen)] != checking.sample(paths, "test")
    assert checking.sample(paths[:7], "train") == paths[:7]


@pytest.mark.parametrize("hidden_by_the_sample", [False, True])
def test_a_quick_check_decodes_a_sample_and_misses_no_missing_file(tmp_path, monkeypatch, hidden_by_the_sample):
    monkeypatch.setattr(checking, "SAMPLE", 2)
    root = fill(tmp_path)
    names = [path.name for path in checking.sample([root / f"train{row}.jpg" for row in range(6)], "train")]
    other = next(f"train{row}.jpg" for row in range(6) if f"train{row}.jpg" not in names)
    truncate(root / (other if hidden_by_the_sample else names[0]))
    findings = checking.check(Folder(), root, quick=True, workers=0)
    assert findings.splits[0].inspected == 2 and findings.ok == hidden_by_the_sample
    (root / other).unlink()
    assert not checking.check(Folder(), root, quick=True, workers=0).ok


@pytest.mark.parametrize("quick", [False, True])
def test_missing_images_hide_nothing_else(tmp_path, quick):
    root = fill(tmp_path)
    for row in (0, 4):
        (root / f"train{row}.jpg").unlink()
    truncate(root / "train2.jpg")
    draw(root / "train3.jpg", "L")
    train = checking.check(Folder(), root, quick, workers=0).splits[0]
    assert [path.name for path in train.missing] == ["train0.jpg", "train4.jpg"]
    assert [path.name for path, _ in train.broken["truncated"]] == ["train2.jpg"]
    assert [path.name for path, _ in train.unusual["grey"]] == ["train3.jpg"]
    assert (train.images, train.inspected, train.problem) == (6, 4, "")


def test_a_backbone_that_takes_another_size_is_an_obstacle_with_the_option_that_helps(tmp_path):
    preset = Preset(64, "vit_tiny_patch16_224", batch=4)
    findings = checking.check(Folder(), fill(tmp_path), workers=0, preset=preset, weights="random")
    (line,) = findings.obstacles
    assert line.endswith("224 x 224 pixels and no others, not 64; add --image-size 224")
    assert findings.to_add == ["--image-size 224"] and findings.options_are_enough
    fitting = replace(preset, image_size=224)
    assert checking.check(Folder(), tmp_path, workers=0, preset=fitting, weights="random").ok


def test_fewer_images_than_a_step_takes_are_an_obstacle_with_the_option_that_helps(tmp_path):
    root = fill(tmp_path)
    findings = checking.check(Folder(), root, workers=0, preset=Preset(32, "small", batch=8))
    assert not findings.ok and findings.obstacles == ["train has 6 images, a step takes 8; add --batch 6, or less"]
    assert findings.to_add == ["--batch 6"] and findings.options_are_enough
    assert checking.check(Folder(), root, workers=0, preset=Preset(32, "small", batch=6)).ok
    (root / "train0.jpg").unlink()
    assert not checking.check(Folder(), root, workers=0, preset=Preset(32, "small", batch=8)).options_are_enough


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of weights; calling it puts a model's file there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def put(model):
        snapshot = tmp_path / "hub" / f"models--timm--{model}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").touch()
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abc")

    return put


def test_weights_that_are_not_there_are_told_as_surely_as_can_be_known(tmp_path, hub, monkeypatch):
    from huggingface_hub import constants

    root, preset = fill(tmp_path / "data"), Preset(32, "resnet101", batch=2, lr_multiplier=1e6)  # no word on few steps
    unsure = checking.check(Folder(), root, workers=0, preset=preset)
    assert unsure.ok and unsure.needs_network and "resnet101.tv_in1k are not on this machine" in unsure.warnings[0]
    assert "--weights FILE" in unsure.warnings[0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sure = checking.check(Folder(), root, workers=0, preset=preset)
    assert not sure.ok and not sure.options_are_enough and "--weights FILE" in sure.obstacles[0]
    hub("resnet101.tv_in1k")
    there = checking.check(Folder(), root, workers=0, preset=preset)
    assert there.ok and there.warnings == [] and not there.needs_network


def test_a_network_that_is_pre_trained_here_needs_no_weights():
    assert checking.missing_weights(Preset(32, "small")) is None


def test_an_option_that_a_refusal_names_is_to_be_added(tmp_path):
    class OtherYear(Dataset):
        def load(self, root, name):
            raise UserError(f"no file {name}2014.json: add --set-data year=2017, or download 2014")

    findings = checking.check(OtherYear(), tmp_path, workers=0)
    assert findings.to_add == ["--set-data year=2017"] and not findings.options_are_enough


def test_one_image_is_too_few_for_any_step(tmp_path):
    class One(Folder):
        def load(self, root, name):
            return super().load(root, name).rows(np.arange(1))

    findings = checking.check(One(), fill(tmp_path), workers=0, preset=Preset(32, "small"))
    assert findings.obstacles == ["train has one image; a step takes at least two"] and not findings.options_are_enough


def test_the_length_of_a_run_is_told_beside_the_papers(tmp_path):
    preset = Preset(32, "small", epochs=4, batch=3, lr_multiplier=100)
    found = checking.check(Folder(), fill(tmp_path), workers=0, preset=preset)
    expected = "a run of 4 epochs: learning rate 0.001, 2 steps an epoch, 8 in all (papers' on COCO: 102,600)"
    assert found.training == expected == found.to_json()["training"]
    assert expected in [line.plain for line in findings_text.lines(found, "mine")]
    assert any(warning.startswith("few steps for this learning rate") for warning in found.warnings)
    whole = checking.check(Folder(), tmp_path, workers=0, preset=replace(preset, batch=found.splits[0].images))
    assert "1 step an epoch, 4 in all" in whole.training
    long = checking.check(Folder(), tmp_path, workers=0, preset=replace(preset, epochs=9000))
    assert not any("few steps" in warning for warning in long.warnings)
