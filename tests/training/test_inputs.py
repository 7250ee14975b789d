"""What a study reads: splits, rows, masks and word vectors; what cannot be trained on is refused in one line."""

import re

import numpy as np
import pytest

from mlrpl_bench.data.dataset import held_out
from mlrpl_bench.data.images.decoding import BadImage
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.training import inputs
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import DATASET, write_plugin


@pytest.fixture
def read(tmp_path):
    """Read the tiny data set with options, a part of its text perhaps replaced."""

    def read(before="", after="", reads_files=True, **options):
        assert before in DATASET
        text = DATASET.replace(before, after) if before else DATASET
        number = len(list(tmp_path.glob("set_*.py")))
        cls = load_datasets([write_plugin(tmp_path / f"set_{number}.py", text)])["tiny"].cls
        return inputs.read(cls(), "tiny", tmp_path, Options(**options), lambda *_: None, reads_files)

    return read


def test_both_splits_are_read_whole(read):
    found = read()
    assert (len(found.train), len(found.test), found.skipped_images) == (12, 8, {"training": [], "evaluation": []})
    assert [rows.tolist() for _, rows in found.sources.values()] == [list(range(12)), list(range(8))]
    assert not found.has_word_vectors and found.train.word_vectors_CE is not None


def test_a_tenth_of_the_training_images_is_held_out(read):
    found = read(evaluate_on="val")
    held_N = held_out(12)
    assert list(found.train.ids) == np.flatnonzero(~held_N).tolist()
    assert list(found.test.ids) == np.flatnonzero(held_N).tolist()
    assert found.masks.split.ids == found.train.ids


def test_word_vectors_of_the_dataset_are_kept(read):
    found = read("tuple(INKS))", "tuple(INKS), np.eye(4, dtype=np.float32))")
    assert found.has_word_vectors and (found.train.word_vectors_CE == np.eye(4)).all()


def test_images_that_are_missing_are_refused_unless_they_are_no_files(read, tmp_path):
    read()
    (tmp_path / "tiny" / "9.png").unlink()
    with pytest.raises(UserError, match=r"^1 of 12 training images of tiny are missing, the first is .*9\.png; finish"):
        read()
    assert len(read(reads_files=False).train) == 12
    assert read(on_bad_image="skip").skipped_images == {"training": [(9, "missing")], "evaluation": []}


@pytest.mark.parametrize(
    ("on_bad_image", "said", "advice"),
    [
        ("error", "no image; replace it", r"^no image; replace it \(data check .*--on-bad-image skip$"),
        ("error", "it was left out; use --on-bad-image skip", "^it was left out; use --on-bad-image skip$"),
        ("skip", "no image; replace it", "^no image; replace it, or start the same command again, which leaves it out"),
    ],
)
def test_how_to_go_on_without_an_image_met_in_training_is_said_once(on_bad_image, said, advice):
    assert re.search(advice, str(inputs.met_in_training(BadImage(said), on_bad_image)))


def test_a_dataset_that_ends_the_program_is_named(read):
    with pytest.raises(UserError) as refusal:
        read("        folder = build_folder_once", "        raise SystemExit(4)\n        folder = build_folder_once")
    assert str(refusal.value).startswith("the dataset tiny called sys.exit(4) while its train split was loaded; take")


def test_a_batch_may_be_the_whole_training_set_and_no_more(read):
    found = read()
    inputs.refuse_batch(12, found, "plain")
    line = "plain: no batch of 13 in 12 training images; choose a smaller one with --batch"
    with pytest.raises(UserError, match=re.escape(line)):
        inputs.refuse_batch(13, found, "plain")


def test_counts_that_are_not_the_official_ones_are_told(read, tmp_path):
    cls = load_datasets([write_plugin(tmp_path / "counted.py", DATASET)])["tiny"].cls
    cls.expected_counts = {"train": 10_000, "test": 8, "other": 3}
    assert inputs.unexpected_counts(read(), cls(), "test") == ["12 train images (official: 10,000)"]
    held = read(evaluate_on="val")
    assert inputs.unexpected_counts(held, cls(), "val") == ["12 train images (official: 10,000)"]


def test_originals_need_no_prepared_images(read):
    assert inputs.prepared_rows(read(), ImageTransform(32)) is None
    with pytest.raises(UserError, match="data prepare"):
        inputs.prepared_rows(read(), ImageTransform(32, backend="prepared-raw"))
