"""Masks that are drawn, written, and read back, also those of other code."""

from dataclasses import replace

import numpy as np
import pytest

from mlrpl_bench.data import masks
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.masks import Masks
from mlrpl_bench.data.protocol import ABSENT, PRESENT, hide, known_mask
from mlrpl_bench.utils.errors import UserError

N, C, RATIO = 200, 5, 0.3


@pytest.fixture
def split(tmp_path):
    labels_NC = np.where(np.random.default_rng(0).random((N, C)) < 0.3, PRESENT, ABSENT).astype(np.int8)
    return Split(
        [f"image-{row}" for row in range(N)], [tmp_path / str(row) for row in range(N)], labels_NC, tuple("abcde")
    )


def test_a_mask_is_the_protocols(split):
    np.testing.assert_array_equal(Masks(split)(RATIO, 3), known_mask((N, C), RATIO, 3))
    by_id = Masks(split, "by_id")(RATIO, 3)
    np.testing.assert_array_equal(by_id, known_mask((N, C), RATIO, 3, "by_id", ids=split.ids))


def test_what_is_left_out_changes_no_other_images_mask(split):
    rows = np.array([0, 3, 4, 150])
    np.testing.assert_array_equal(Masks(split, kept_rows=rows)(RATIO, 0), Masks(split)(RATIO, 0)[rows])


@pytest.mark.parametrize("scheme", ["hcp", "by_id", "positives_only"])
def test_a_ratio_at_which_nothing_is_known_is_refused_and_the_one_that_is_named_is_enough(split, scheme):
    with pytest.raises(UserError) as refusal:
        Masks(split, scheme)(1e-300, 0)
    labels = int((split.labels_NC == PRESENT).sum()) if scheme == "positives_only" else N * C
    line = str(refusal.value)
    assert line.startswith(f"known ratio 1e-300 leaves none of the {labels:,} ") and "\n" not in line
    lowest = float(line.rpartition("about ")[2])
    assert lowest == pytest.approx(10 / labels, rel=0.1)
    assert all(Masks(split, scheme)(lowest, seed).any() for seed in range(20))


def test_a_mask_from_a_file_that_knows_nothing_is_refused(split, tmp_path):
    np.save(tmp_path / "mask.npy", np.zeros((N, C), dtype=bool))
    with pytest.raises(UserError, match=r"mask\.npy knows none of the labels"):
        Masks(split, file=tmp_path / "mask.npy")(0.01, 0)


def test_a_written_mask_is_read_back(split, tmp_path):
    mask_NC = known_mask((N, C), RATIO, 7)
    masks.write(tmp_path / "mask.npz", mask_NC, split, RATIO, 7)
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.npz", split, RATIO), mask_NC)
    np.testing.assert_array_equal(Masks(split, file=tmp_path / "mask.npz")(RATIO, 0), mask_NC)


@pytest.mark.parametrize("form", ["mask", "zeros and ones", "hidden labels", "floats"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_masks_of_other_code_are_read(split, tmp_path, form, suffix):
    mask_NC = known_mask((N, C), RATIO)
    array_NC = {
        "mask": mask_NC,
        "zeros and ones": mask_NC.astype(np.int64),
        "hidden labels": hide(split.labels_NC, mask_NC),
        "floats": hide(split.labels_NC, mask_NC).astype(np.float64),
    }[form]
    path = tmp_path / f"theirs{suffix}"
    np.save(path, array_NC) if suffix == ".npy" else np.savez(path, array_NC)
    np.testing.assert_array_equal(masks.read(path, split, RATIO), mask_NC)


def test_a_mask_of_other_images_categories_or_labels_is_refused(split, tmp_path):
    path, mask_NC = tmp_path / "mask.npz", known_mask((N, C), RATIO)
    masks.write(path, mask_NC, split, RATIO, 0)
    with pytest.raises(UserError, match="other ids"):
        masks.read(path, replace(split, ids=split.ids[::-1]), RATIO)
    with pytest.raises(UserError, match="other categories"):
        masks.read(path, replace(split, categories=tuple("abcdx")), RATIO)
    with pytest.raises(UserError, match=r"cannot stand for a known ratio of 0\.5"):
        masks.read(path, split, 0.5)
    np.save(tmp_path / "theirs.npy", hide(split.labels_NC, mask_NC)[::-1])
    with pytest.raises(UserError, match="in another order"):
        masks.read(tmp_path / "theirs.npy", split, RATIO)
    np.save(tmp_path / "short.npy", mask_NC[1:])
    with pytest.raises(UserError, match=r"shape \(199, 5\), the training set \(200, 5\)"):
        masks.read(tmp_path / "short.npy", split, RATIO)
    np.save(tmp_path / "scores.npy", np.random.default_rng(0).random((N, C)))
    with pytest.raises(UserError, match="other values"):
        masks.read(tmp_path / "scores.npy", split, RATIO)
    np.savez(tmp_path / "two.npz", a=mask_NC, b=mask_NC)
    with pytest.raises(UserError, match="has the arrays a, b"):
        masks.read(tmp_path / "two.npz", split, RATIO)


@pytest.mark.parametrize("damage", ["missing", "cut short", "text", "pickled"])
def test_a_damaged_mask_file_is_named(split, tmp_path, damage):
    path = tmp_path / "mask.npz"
    masks.write(path, known_mask((N, C), RATIO), split, RATIO, 0)
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no mask")
    else:
        np.savez(path, np.array([{"not": "ours"}], dtype=object))
    with pytest.raises(UserError, match="mask"):
        masks.read(path, split, RATIO)


def test_a_mask_that_was_cut_or_stands_for_another_ratio_is_refused(split, tmp_path):
    path = tmp_path / "mask.npz"
    masks.write(path, known_mask((N, C), RATIO), split, RATIO, 0)
    with pytest.raises(UserError, match="cannot stand for a known ratio of 0.32"):  # noqa: RUF043
        masks.read(path, split, 0.32)
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **{**content, "known_NC": content["known_NC"][:2]})
    with pytest.raises(UserError, match="cut short"):
        masks.read(path, split, RATIO)
    del content["ids"]
    np.savez(path, **content)
    with pytest.raises(UserError, match="lacks ids"):
        masks.read(path, split, RATIO)


@pytest.mark.parametrize("form", ["ours", "mask", "hidden labels"])
def test_a_mask_file_makes_no_label_known_that_nobody_gave(split, tmp_path, form):
    given_NC = np.random.default_rng(2).random((N, C)) < 0.5
    some = replace(split, labels_NC=hide(split.labels_NC, given_NC))
    mask_NC, path = known_mask((N, C), RATIO), tmp_path / "mask.npz"
    if form == "ours":
        masks.write(path, mask_NC, some, RATIO, 0)
    else:
        np.savez(path, mask_NC if form == "mask" else hide(some.labels_NC, mask_NC))
    np.testing.assert_array_equal(masks.read(path, some, RATIO), mask_NC & given_NC)
    np.testing.assert_array_equal(Masks(some)(RATIO, 0), mask_NC & given_NC)
