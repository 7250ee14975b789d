"""A check says what is missing, what is damaged and what is merely unusual; it is ok only where a run would succeed."""

import json

import numpy as np
import pytest
from made_up import Folder, draw, fill, labels, split, truncate

from mlrpl_bench.dataset import Dataset
from mlrpl_bench.inspection import checking
from mlrpl_bench.protocol import PRESENT


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
