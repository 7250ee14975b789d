"""``data prepare``: what it keeps, and that training uses it."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from mlrpl_bench.data.word_vectors import prepared
from tests.helpers.tiny_study import CATEGORIES, study


def test_word_vectors_are_prepared_and_used(bench, tmp_path):
    np.save(tmp_path / "vectors.npy", np.eye(4))
    code, out, _ = bench("data", "prepare", "tiny", "--word-vectors=vectors.npy")
    assert code == 0 and "wrote" in out
    np.testing.assert_array_equal(prepared(CATEGORIES), np.eye(4))


@pytest.mark.parametrize(("kind", "backend"), [("jpeg", "prepared-jpeg95"), ("raw", "prepared-raw")])
def test_images_are_prepared_and_used(bench, tmp_path, kind, backend):
    code, out, _ = bench("data", "prepare", "tiny", f"--images={kind}")
    assert code == 0 and f"--image-backend {backend}" in out and "37 x 37 pixels" in out
    common = ("run", "plain", "--dataset=tiny", "--ratios=0.5", "--epochs=1", "--device=cpu", "--plugin=plain.py")
    code, out, err = bench(*common, f"--image-backend={backend}", "--evaluate-on=val")
    assert code == 0, err
    assert f"image backend {backend} (papers: reference)" in " ".join(out.split())


def test_prepared_images_are_those_of_the_rows(bench, tmp_path):
    bench("data", "prepare", "tiny", "--images=raw")
    whole = study(tmp_path / "again.py", image_backend="prepared-raw")
    held = study(tmp_path / "again.py", image_backend="prepared-raw", evaluate_on="val")
    of_whole = next(iter(whole.workbench.in_order("train", 12)))
    for name in ("train", "test"):
        part = next(iter(held.workbench.in_order(name, 12)))
        rows = [whole.train.ids.index(identity) for identity in getattr(held, name).ids]
        assert (part.images_B3HW == of_whole.images_B3HW[rows]).all()


def test_a_lossless_cache_gives_the_reference_s_training_views(bench, tmp_path):
    bench("data", "prepare", "tiny", "--images=raw")
    views = [study(tmp_path / "again.py", image_backend=backend) for backend in ("reference", "prepared-raw")]
    batches = [next(iter(one.workbench.training_batches(0, 0, 4))) for one in views]
    assert (batches[0].images_B3HW == batches[1].images_B3HW).all()


def test_images_that_were_not_prepared_are_asked_for(bench):
    code, _, err = bench(
        "run", "plain", "--dataset=tiny", "--device=cpu", "--plugin=plain.py", "--image-backend=prepared-raw"
    )
    assert code == 2 and "prepare the images first" in err and len(err.strip().splitlines()) == 1


def test_vectors_of_another_width_are_told(bench, tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones((4, 50)))
    _, out, _ = bench("data", "prepare", "tiny", "--word-vectors=vectors.npy")
    assert "warning: the vectors are 50 wide; the papers use GloVe of width 300" in out
    np.save(tmp_path / "vectors.npy", np.ones((4, 300)))
    _, out, _ = bench("data", "prepare", "tiny", "--word-vectors=vectors.npy")
    assert "warning" not in out


@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_damaged_images_stop_preparing_with_what_to_do_or_are_left_out(bench, tmp_path, kind):
    study(tmp_path / "again.py")  # which draws the pictures
    damaged, gone = tmp_path / "cache" / "tiny" / "9.png", tmp_path / "cache" / "tiny" / "10.png"
    damaged.write_bytes(b"no image")
    code, _, err = bench("data", "prepare", "tiny", f"--images={kind}")
    assert code == 2 and str(damaged) in err and "or leave it out with --on-bad-image skip" in err
    assert len(err.strip().splitlines()) == 1
    gone.unlink()
    code, _, err = bench("data", "prepare", "tiny", f"--images={kind}")
    assert code == 2 and "1 of 12 train images are missing" in err and "--on-bad-image skip" in err
    code, out, err = bench("data", "prepare", "tiny", f"--images={kind}", "--on-bad-image=skip")
    assert code == 0, err
    assert f"left out: {damaged} (it is no image)" in out and f"left out: {gone} (missing)" in out
    assert out.splitlines()[-1].endswith("--on-bad-image skip")
    backend = {"jpeg": "prepared-jpeg95", "raw": "prepared-raw"}[kind]
    common = ("run", "plain", "--dataset=tiny", "--ratios=0.5", "--epochs=1", "--device=cpu", "--plugin=plain.py")
    code, out, err = bench(*common, f"--image-backend={backend}", "--on-bad-image=skip")
    assert code == 0 and "2 training images left out, missing or damaged" in " ".join(out.split())


def test_the_place_for_both_splits_is_asked_before_anything_is_written(bench, tmp_path, monkeypatch):
    free = 12 * 3 * 37**2 + 200  # enough for the larger split
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(free))
    code, _, err = bench("data", "prepare", "tiny", "--images=raw")
    assert code == 2 and "are free on the disk" in err and "--image-size" in err
    assert not (tmp_path / "cache" / "prepared").exists()


def test_another_size_is_named_in_what_to_type(bench):
    _, out, _ = bench("data", "prepare", "tiny", "--images=raw", "--image-size=16")
    assert out.splitlines()[-1] == "use them with --image-backend prepared-raw --image-size 16"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("prepare", "tiny"), "nothing to prepare"),
        (("prepare", "tiny", "--images=png"), "--images png is not valid; it is jpeg or raw"),
        (("prepare", "tiny", "--word-vectors=none.txt"), "there is no file of word vectors none.txt"),
        (("prepare", "tiny", "--images=raw", "--on-bad-image=hide"), "--on-bad-image hide is not valid"),
    ],
)
def test_bad_input_is_one_line(bench, tmp_path, arguments, line):
    code, _, err = bench("data", *arguments)
    assert code == 2 and line in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "mask.npz").exists() and not (tmp_path / "gone").exists()
