"""From a user's own folder of images to a table: every command leaves the folder as it was."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command import in_folder
from tests.helpers.tiny_study import METHOD, contents, write_plugin

NAMES, IN_TRAIN, IN_TEST = ("red thing", "green thing", "blue thing"), 12, 6


def draw(folder, first, count):
    """Pictures that show the things that their number's bits say."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        pixels_HW3 = np.full((40, 60, 3), 60, dtype=np.uint8)
        for place in range(3):
            if number >> place & 1:
                pixels_HW3[5:30, 20 * place : 20 * place + 15, place] = 250
        Image.fromarray(pixels_HW3).save(folder / f"{number}.jpg")


def annotate(path, first, count):
    path.parent.mkdir(exist_ok=True)
    numbers = range(first, first + count)
    pairs = [(number, place) for number in numbers for place in range(3) if number >> place & 1]
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers],
        "annotations": [{"id": k, "image_id": n, "category_id": place} for k, (n, place) in enumerate(pairs)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(NAMES)],
    }
    path.write_text(json.dumps(content))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    root, work = tmp_path / "data", tmp_path / "work"
    work.mkdir()
    for name, first, count in (("train", 1, IN_TRAIN), ("test", 1 + IN_TRAIN, IN_TEST)):
        draw(root / name, first, count)
        annotate(root / "annotations" / f"instances_{name}.json", first, count)
    write_plugin(work / "plain.py", METHOD)
    bench = in_folder(monkeypatch, work)
    monkeypatch.setenv("MLRPL_DATA", str(root))
    return bench


TRAIN = (
    "leaderboard", "--dataset=coco_json", "--methods=plain", "--plugin=plain.py", "--ratios=0.5", "--epochs=1",
    "--backbone=small", "--weights=random", "--device=cpu", "--batch=4", "--image-size=32",
)  # fmt: skip


def test_every_command_works_and_leaves_the_data_as_they_were(bench, tmp_path):
    before = contents(tmp_path / "data")
    code, out, _ = bench("data", "check", "coco_json")
    assert code == 1 and out.splitlines()[-1].endswith("--batch 12")  # the preset's is 16
    np.save("vectors.npy", np.eye(3))
    for command in (
        ("data", "stats", "coco_json"),
        ("data", "show", "coco_json", "--images=3"),
        ("data", "prepare", "coco_json", "--word-vectors=vectors.npy", "--images=raw", "--image-size=32"),
        ("data", "mask", "coco_json", "--ratio=0.5", "--output=mask.npz"),
        TRAIN,
        (*TRAIN, "--image-backend=prepared-raw", "--mask-file=mask.npz", "--no-train"),
    ):
        code, _, err = bench(*command)
        if "--no-train" in command:  # the other backend's record must not stand in for it
            assert code == 2 and "no records of this setting" in err
        else:
            assert code == 0, (command, err)
    assert contents(tmp_path / "data") == before


def test_a_damaged_image_is_named_by_check_and_by_training_and_can_be_skipped(bench, tmp_path):
    damaged = tmp_path / "data" / "train" / "5.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    code, out, _ = bench("data", "check", "coco_json")
    assert code == 1 and "5.jpg" in out
    code, _, err = bench(*TRAIN)
    assert code in (1, 2) and "5.jpg" in err and "Traceback" not in err
    code, out, err = bench(*TRAIN, "--on-bad-image=skip")
    assert code == 0 and "1 training images left out" in " ".join(out.split())


def test_other_pictures_under_the_same_labels_are_another_cell_and_another_cache(bench, tmp_path):
    draw(tmp_path / "data" / "other", 2, IN_TRAIN + 1)
    (tmp_path / "data" / "other" / "1.jpg").write_bytes((tmp_path / "data" / "other" / "2.jpg").read_bytes())
    code, _, err = bench(*TRAIN)
    assert code == 0, err
    other = ("--set-data=train_images=other",)
    code, out, _ = bench(*TRAIN, *other, "--dry-run")
    assert code == 0 and "plain 50 % seed 0" in out
    code, out, _ = bench(*TRAIN, *other)
    assert code == 0 and "dataset option train_images=other" in " ".join(out.split())
    prepare = ("data", "prepare", "coco_json", "--images=raw", "--image-size=32")
    folders = [{line for line in bench(*prepare, *more)[1].splitlines() if "wrote" in line} for more in ((), other)]
    assert len(folders[0] & folders[1]) == 1, "the test images are the same, the training images are not"


def test_two_masks_from_files_are_not_averaged(bench):
    for seed in (1, 2):
        bench("data", "mask", "coco_json", "--ratio=0.5", f"--seed={seed}", f"--output={seed}.npz")
    numbers = []
    for seed in (1, 2, 1):
        code, out, _ = bench(*TRAIN, f"--mask-file={seed}.npz", "--json")
        assert code == 0
        (row,) = (row for name, row in json.loads(out)["rows"].items() if name == "plain")
        assert row["50 %"]["seeds"] == 1
        numbers.append(row["50 %"]["mean"])
    assert numbers[0] == numbers[2]


def test_a_folder_that_cannot_be_written_is_one_line(bench):
    code, _, err = bench("data", "mask", "coco_json", "--ratio=0.5", "--output=/proc/none/mask.npz")
    assert code == 2 and len(err.strip().splitlines()) == 1
