"""A split is consistent, and its fingerprint is what must be equal for numbers to be comparable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlrpl_bench.data.dataset import LAPTOP, NINE_RATIOS, PAPERS, Dataset, Preset, Split, held_out, refuse_unmeasurable
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.evaluation.metrics import evaluate
from mlrpl_bench.models.backbones import RESNET101
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import refusal

SPLIT = Split(
    ids=[3, 1],
    image_paths=[Path("3.jpg"), Path("1.jpg")],
    labels_NC=np.array([[PRESENT, ABSENT, ABSENT], [ABSENT, UNKNOWN, PRESENT]], dtype=np.int8),
    categories=("cat", "dog", "cow"),
    word_vectors_CE=np.zeros((3, 4), dtype=np.float32),
)


def test_the_length_of_a_split_is_its_number_of_images():
    assert len(SPLIT) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": [3]},
        {"ids": [3, 3]},
        {"image_paths": [Path("3.jpg")]},
        {"categories": ("cat", "dog")},
        {"labels_NC": SPLIT.labels_NC.astype(np.int64)},
        {"labels_NC": np.full((2, 3), 2, dtype=np.int8)},
        {"word_vectors_CE": np.zeros((2, 4), dtype=np.float32)},
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes):
    with pytest.raises(AssertionError):
        replace(SPLIT, **changes)


def test_the_fingerprint_is_the_same_for_the_same_labels_in_other_places():
    elsewhere = replace(SPLIT, image_paths=[Path("/a/3.jpg"), Path("/a/1.jpg")], labels_NC=SPLIT.labels_NC.copy())
    assert elsewhere.fingerprint() == SPLIT.fingerprint()


def test_the_fingerprint_does_not_depend_on_the_memory_layout():
    assert replace(SPLIT, labels_NC=np.asfortranarray(SPLIT.labels_NC)).fingerprint() == SPLIT.fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": [1, 3]},
        {"ids": [3, 2]},
        {"categories": ("dog", "cat", "cow")},
        {"labels_NC": -SPLIT.labels_NC},
        {"labels_NC": SPLIT.labels_NC[::-1]},
    ],
)
def test_the_fingerprint_tells_ids_categories_labels_and_their_order(changes):
    assert replace(SPLIT, **changes).fingerprint() != SPLIT.fingerprint()


def test_a_dataset_must_say_how_it_is_loaded():
    class Forgetful(Dataset):
        pass

    with pytest.raises(TypeError, match="load"):
        Forgetful()


def test_a_preset_shows_the_nine_ratios_of_the_papers_unless_it_names_others():
    assert Preset(448, "resnet101").ratios == NINE_RATIOS == tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))


def test_held_out_rows_are_a_tenth_drawn_by_seed():
    held_N = held_out(40)
    assert held_N.shape == (40,) and held_N.sum() == 4
    assert (held_out(40) == held_N).all() and (held_out(40, seed=1) != held_N).any()
    assert held_out(40, share=0.5).sum() == 20


def test_rows_are_taken_in_the_order_given():
    taken = SPLIT.rows(np.array([1, 0]))
    assert (taken.ids, taken.image_paths) == ([1, 3], [Path("1.jpg"), Path("3.jpg")])
    np.testing.assert_array_equal(taken.labels_NC, SPLIT.labels_NC[::-1])
    assert taken.categories == SPLIT.categories and taken.fingerprint() != SPLIT.fingerprint()


def test_the_papers_setting_is_that_of_the_photographs():
    assert (PAPERS.image_size, PAPERS.backbone, PAPERS.epochs, PAPERS.batch) == (448, RESNET101, 20, 16)
    assert {load_datasets()[name].preset for name in ("coco", "coco_json", "voc2007", "vg200")} == {PAPERS}


@pytest.mark.parametrize("name", ["coco", "coco_json", "table", "voc2007", "vg200", "vg200_rebuilt"])
def test_data_sets_of_photographs_have_the_papers_setting_and_one_for_a_laptop(name):
    entry = load_datasets()[name]
    assert entry.preset_called("paper") == entry.preset_called(None) == PAPERS
    assert entry.preset_called("laptop") == LAPTOP != PAPERS


def test_labels_that_nobody_gave_are_counted():
    assert SPLIT.num_unknown == 1
    assert replace(SPLIT, labels_NC=np.full((2, 3), ABSENT, dtype=np.int8)).num_unknown == 0


@pytest.mark.parametrize(("value", "fits"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_labels_are_one_of_three_states(value, fits):
    labels_NC = np.full((2, 3), value, dtype=np.int8)
    if fits:
        replace(SPLIT, labels_NC=labels_NC)
    else:
        with pytest.raises(AssertionError):
            replace(SPLIT, labels_NC=labels_NC)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ([[PRESENT, ABSENT, UNKNOWN]] * 2, None),
        ([[PRESENT, PRESENT, PRESENT]] * 2, None),  # as metrics have it: complete, though nothing can be got wrong
        ([[PRESENT, PRESENT, UNKNOWN]] * 2, "absent"),
        ([[ABSENT, UNKNOWN, UNKNOWN]] * 2, "present"),
        ([[ABSENT, ABSENT, ABSENT]] * 2, "present"),
    ],
)
def test_images_of_which_no_metric_can_be_made_are_refused(labels, word):
    split = replace(SPLIT, labels_NC=np.array(labels, dtype=np.int8))
    if word is None:
        refuse_unmeasurable(split, "mine")
    else:
        line = refusal(lambda: refuse_unmeasurable(split, "mine"))
        assert f"mine: none of the given labels of the 2 images to evaluate on is {word}" in line
        with pytest.raises(UserError):  # which evaluation itself would refuse, after the training
            evaluate(np.linspace(-1, 1, 6).reshape(2, 3), split.labels_NC)
