"""What cells share: the frozen part never changes, and keeping its output changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import normalise, row_order
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.tools.conformance.sample import NUM_TEST, NUM_TRAIN, PRESET, SIDE, Sample
from mlrpl_bench.training import workbench as workbench_module
from mlrpl_bench.training.trainer import train
from mlrpl_bench.training.workbench import Workbench
from tests.helpers.plain_method import Plain, entry_of

BATCH = 4


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(entry_of(Plain), tmp_path_factory.mktemp("images"))


@pytest.fixture
def workbench(sample):
    return sample.workbench()


@pytest.fixture
def frozen_calls(sample):
    """The batch sizes for which the frozen part was asked."""
    sizes = []
    handle = sample.backbone.frozen.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    yield sizes
    handle.remove()


def equal(batches, others):
    return all(
        torch.equal(tensor, other)
        for batch, other_batch in zip(batches, others, strict=True)
        for tensor, other in zip(batch[:3], other_batch[:3], strict=True)
    )


def images_of(split):
    """The test view of every image, by the shortest way."""
    pixels = np.stack([np.asarray(ImageTransform(SIDE).test(decode(path))) for path in split.image_paths])
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))


@pytest.mark.parametrize("split", ["train", "test"])
def test_frozen_output_that_was_kept_equals_frozen_output_computed_anew(workbench, split, monkeypatch):
    first, kept = list(workbench.in_order(split, BATCH)), list(workbench.in_order(split, BATCH))
    monkeypatch.setattr(workbench_module, "KEEP_FEATURES_BYTES", 0)
    workbench._kept.clear()
    anew = [list(workbench.in_order(split, BATCH)) for _ in range(2)]
    assert all(equal(first, other) for other in (kept, *anew))


def test_frozen_output_is_computed_once_while_there_is_room(workbench, frozen_calls):
    for _ in range(3):
        list(workbench.in_order("test", BATCH))
    assert frozen_calls == [4, 4, 1]


def test_frozen_output_is_computed_each_time_where_there_is_no_room(workbench, frozen_calls, monkeypatch):
    monkeypatch.setattr(workbench_module, "KEEP_FEATURES_BYTES", 0)
    for _ in range(3):
        list(workbench.in_order("test", BATCH))
    assert frozen_calls == 3 * [4, 4, 1]


def test_a_split_that_fits_only_in_part_is_not_kept_in_part(workbench, monkeypatch):
    first = next(iter(workbench.in_order("test", BATCH)))
    monkeypatch.setattr(workbench_module, "KEEP_FEATURES_BYTES", first.images_B3HW.nbytes + first.frozen_BDHW.nbytes)
    for _ in range(2):
        assert sum(len(shared.index_B) for shared in workbench.in_order("test", BATCH)) == NUM_TEST


def test_a_look_that_was_broken_off_keeps_nothing(workbench):
    next(iter(workbench.in_order("test", BATCH)))
    assert sum(len(shared.index_B) for shared in workbench.in_order("test", BATCH)) == NUM_TEST


def test_what_is_kept_is_kept_apart_by_split_and_batch_size(workbench):
    sizes = {
        (split, batch): [len(shared.index_B) for shared in workbench.in_order(split, batch)]
        for split, batch in (("test", 4), ("test", 5), ("train", 4), ("test", 4))
    }
    assert sizes == {("test", 4): [4, 4, 1], ("test", 5): [5, 4], ("train", 4): [4] * 5 + [3]}


@pytest.mark.parametrize("split", ["train", "test"])
def test_in_order_gives_every_image_once_with_its_frozen_output(sample, workbench, split):
    batches = list(workbench.in_order(split, BATCH))
    images_B3HW = images_of(sample.splits[split])
    assert torch.cat([shared.index_B for shared in batches]).tolist() == list(range(len(images_B3HW)))
    assert torch.equal(torch.cat([shared.images_B3HW for shared in batches]), images_B3HW)
    with torch.no_grad():
        expected_BDHW = sample.backbone.frozen(images_B3HW)
    assert torch.allclose(torch.cat([shared.frozen_BDHW for shared in batches]), expected_BDHW, atol=1e-5)


def test_training_batches_come_in_the_order_of_seed_and_epoch(workbench):
    batches = list(workbench.training_batches(3, 1, BATCH))
    order = row_order(NUM_TRAIN, 3, 1)
    assert torch.equal(torch.cat([shared.index_B for shared in batches]), order[: NUM_TRAIN // BATCH * BATCH])
    assert workbench.steps_per_epoch(BATCH) == len(batches)
    for shared in batches:
        assert torch.equal(shared.frozen_BDHW, workbench.backbone.frozen(shared.images_B3HW))


def test_training_batches_are_augmented_anew_each_epoch(workbench):
    first, second = ({}, {})
    for epoch, views in enumerate((first, second)):
        for shared in workbench.training_batches(0, epoch, 1):
            views[int(shared.index_B)] = shared.images_B3HW
    assert not any(torch.equal(first[row], second[row]) for row in first)


def test_the_frozen_part_is_in_eval_mode_whatever_it_was_before(sample):
    sample.backbone.frozen.train()
    sample.workbench()
    assert not any(module.training for module in sample.backbone.frozen.modules())


def test_frozen_output_has_no_gradient(sample):
    sample.backbone.frozen.requires_grad_(True)
    try:
        workbench = sample.workbench()
        for batches in (workbench.in_order("test", BATCH), workbench.training_batches(0, 0, BATCH)):
            assert not any(shared.frozen_BDHW.requires_grad for shared in batches)
    finally:
        sample.backbone.frozen.requires_grad_(False)


def test_training_leaves_the_frozen_part_as_it_was_batch_norm_statistics_included(sample, workbench):
    before = {name: value.clone() for name, value in sample.backbone.frozen.state_dict().items()}
    assert any("running_mean" in name for name in before)
    list(train([sample.job()], workbench))
    after = sample.backbone.frozen.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_training_leaves_the_shared_trained_part_as_it_was(sample, workbench):
    before = {name: value.clone() for name, value in sample.backbone.trained.state_dict().items()}
    list(train([sample.job()], workbench))
    after = sample.backbone.trained.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_batch_size_above_the_number_of_images_gives_one_short_batch_in_order_and_no_step(sample):
    few = replace(
        sample.splits["test"],
        ids=[0, 1],
        image_paths=sample.splits["test"].image_paths[:2],
        labels_NC=sample.splits["test"].labels_NC[:2],
    )
    workbench = Workbench(few, few, sample.backbone, ImageTransform(SIDE), sample.fabric)
    assert [len(shared.index_B) for shared in workbench.in_order("train", PRESET.batch)] == [2]
    assert workbench.steps_per_epoch(PRESET.batch) == 0
    assert list(workbench.training_batches(0, 0, PRESET.batch)) == []
