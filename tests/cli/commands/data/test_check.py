"""``data check`` says whether a run would succeed, and what to type next."""

import json

import pytest
import torch
from PIL import Image


def test_a_check_that_is_ok_ends_with_a_run_to_type(ask, root):
    answer = ask("check", "mine", "--root", root, "--set-data", "categories=4")
    assert answer.code == 0
    assert "train: 3 images, 4 categories, 3 decoded" in answer.out
    command = answer.out.splitlines()[-1].strip()
    assert command.startswith("python bench.py leaderboard --dataset mine --data-root '") and "my pictures'" in command
    assert command.endswith("--set-data categories=4")


def test_a_check_tells_what_a_run_trains_with_the_options_of_that_run(ask, root):
    plain, other = (ask("check", "mine", "--root", root, *more) for more in ((), ("--trained-stages=2", "--lr=3")))
    assert "trained of the backbone small: 1 of 4 stages, 0.07 of 0.12 million parameters" in plain.out
    assert "trained of the backbone small: 2 of 4 stages, 0.10 of 0.12 million parameters" in other.out
    assert other.out.splitlines()[-1].endswith("--trained-stages 2 --lr 3.0")
    refused = ask("check", "mine", "--root", root, "--preset", "laptop")
    assert refused.code == 2 and "--preset laptop: mine has no such preset" in refused.err


def test_a_check_looks_ahead_with_every_option_that_a_run_is_given(ask, root, tmp_path):
    options = ("--image-size=64", "--feature-width=32", "--attention-width=16", "--weights=random")
    answer = ask("check", "mine", "--root", root, *options)
    assert answer.code == 0
    end = "--image-size 64 --weights random --feature-width 32 --attention-width 16"
    assert answer.out.splitlines()[-1].endswith(end)
    gone = ask("check", "mine", "--root", root, "--weights", tmp_path / "gone.pth")
    assert gone.code == 1 and f"error: --weights {tmp_path / 'gone.pth'}: there is no such file" in gone.out
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    other = ask("check", "mine", "--root", root, "--weights", tmp_path / "other.pth")
    assert other.code == 1 and "error: --weights" in other.out
    there = ask("check", "mine", "--root", root, "--backbone=resnet18", "--weights=random")
    assert there.code == 0 and "will be fetched" not in there.out


def test_a_check_of_a_run_on_validation_images_leaves_the_test_images_alone(ask, root):
    Image.effect_noise((20, 30), 50).save(root / "test0.png")
    (root / "test0.png").write_bytes(b"")
    assert ask("check", "mine", "--root", root).code == 1
    answer = ask("check", "mine", "--root", root, "--evaluate-on", "val")
    assert "test0.png" not in answer.out and "test:" not in answer.out
    assert "error: train has 3 images, too few to hold a tenth of them out" in answer.out


def test_a_quick_check_names_the_whole_check_too(ask, root):
    answer = ask("check", "mine", "--quick", "--root", root)
    assert answer.code == 0 and answer.out.splitlines()[-1].strip().startswith("python bench.py data check mine")


def test_a_truncated_image_is_named_and_the_exit_code_is_1(ask, root):
    damaged = root / "train1.png"
    damaged.write_bytes(damaged.read_bytes()[:400])
    answer = ask("check", "mine", "--data-root", root)
    assert answer.code == 1 and str(damaged) in answer.out and "a run would fail" in answer.out
    *_, again, _, without = answer.out.splitlines()
    assert "data check mine --root" in again
    assert "leaderboard --dataset mine" in without and without.endswith(" --on-bad-image skip")


def test_a_missing_folder_is_told_with_the_tree_and_exit_code_1(ask, tmp_path):
    answer = ask("check", "mine", "--root", tmp_path / "gone")
    assert answer.code == 1 and "is not a folder" in answer.out and "  *.png" in answer.out


def test_the_findings_as_json_and_in_a_file(ask, root, tmp_path):
    (root / "test0.png").write_text("no image")
    answer = ask("check", "mine", "--json", "--root", root, "--output", tmp_path / "found.json")
    found = json.loads(answer.out)
    assert answer.code == 1 and not found["ok"] and found["dataset"] == "mine"
    assert found["splits"]["test"]["broken"]["unreadable"][0]["file"] == str(root / "test0.png")
    assert json.loads((tmp_path / "found.json").read_text()) == found


def test_the_root_may_come_from_the_environment(ask, root, monkeypatch):
    monkeypatch.setenv("MLRPL_DATA", str(root))
    assert ask("check", "mine").code == 0


def test_generated_data_needs_no_root(ask):
    assert "train: 12 images" in ask("check", "tiny").out


def test_a_missing_image_hides_no_damaged_one(ask, root):
    (root / "train0.png").unlink()
    (root / "train1.png").write_text("no image")
    plugin = root.parent / "mine.py"
    plugin.write_text(plugin.read_text().replace('sorted(root.glob(f"{split}*.png"))', LISTED))
    answer = ask("check", "mine", "--root", root)
    assert answer.code == 1 and str(root / "train0.png") in answer.out and str(root / "train1.png") in answer.out
    assert "1 image: missing" in answer.out and "1 image: unreadable" in answer.out


LISTED = '[root / f"{split}{row}.png" for row in range(3 if split == "train" else 2)]'


def test_too_few_images_for_a_step_end_with_a_run_that_would_succeed(ask, root):
    plugin = root.parent / "mine.py"
    plugin.write_text(plugin.read_text().replace("batch=2", "batch=16"))
    answer = ask("check", "mine", "--root", root)
    assert answer.code == 1 and "train has 3 images, a step takes 16" in answer.out
    command = answer.out.splitlines()[-1].strip()
    assert command.startswith("python bench.py leaderboard --dataset mine") and command.endswith("--batch 3")


@pytest.mark.parametrize("given", [[], ["--set-data", "year=2014"]])
def test_another_year_ends_with_the_check_of_that_year(ask, tmp_path, given):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (tmp_path / "coco" / "annotations" / f"instances_{part}2017.json").write_text("{}")
    answer = ask("check", "coco", "--root", tmp_path / "coco", *given)
    command = answer.out.splitlines()[-1]
    assert answer.code == 1 and command.count("year=") == 1 and "--set-data year=2017" in command


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["check", "mine"], "where is mine? Name its folder with --root PATH or MLRPL_DATA"),
        (["check", "mone", "--root", "."], "did you mean 'mine'?"),
        (["check", "mine", "--root", ".", "--set-data", "categories"], "write it as name=value"),
        (["check", "mine", "--root", ".", "--set-data", "categores=3"], "did you mean 'categories'?"),
        (["check", "tiny", "--set-data", "year=1"], "tiny has no option 'year'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(ask, arguments, part):
    answer = ask(*arguments)
    assert answer.code == 2 and part in answer.err
    assert len(answer.err.strip().splitlines()) == 1 and answer.err.startswith("error: ")
