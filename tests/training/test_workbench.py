"""What cells share: the frozen part never changes, and keeping its output changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import normalise, row_order
from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.data.images.transforms import ImageTransform, PixelFormat
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.tools.conformance.sample import NUM_TEST, NUM_TRAIN, PRESET, SIDE, Sample
from mlrpl_bench.training import workbench as workbench_module
from mlrpl_bench.training.trainer import Failed, Finished, train
from mlrpl_bench.training.workbench import KEEP_PASSES, FrozenPart, Workbench
from tests.helpers.plain_method import Plain, entry_of

BATCH = 4
STRONG = StrongView()
HALVES = PixelFormat((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


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


def test_images_are_normalised_as_their_view_says_and_strong_views_too(sample):
    view, train_split, test_split = ImageTransform(SIDE, pixels=HALVES), sample.splits["train"], sample.splits["test"]
    workbench = Workbench(train_split, test_split, sample.backbone, view, sample.fabric)
    batch = next(iter(workbench.training_batches(0, 0, BATCH, strong=[STRONG])))
    pixels = next(iter(workbench.readers["train"].training(0, 0, BATCH, strong=[STRONG])))
    for images_B3HW, of_reader_B3HW in (
        (batch.images_B3HW, pixels.pixels_B3HW),
        (batch.strong[STRONG][0], pixels.strong_B3HW[0]),
    ):
        torch.testing.assert_close(images_B3HW, of_reader_B3HW / 127.5 - 1)


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


# The strong view


class Strong(Plain):
    """It learns from the strong view alone."""

    def strong_view(self):
        return STRONG

    def losses(self, batch, progress):
        return super().losses(replace(batch, frozen_BDHW=batch.strong_BDHW), progress)


class Stronger(Strong):
    def strong_view(self):
        return StrongView(magnitude=20)


class Looks(Plain):
    """It is given no second view, whatever others of its group ask for."""

    def losses(self, batch, progress):
        assert batch.strong_images_B3HW is None and batch.strong_BDHW is None
        return super().losses(batch, progress)


class LooksAtBoth(Strong):
    """It is given the image and its strong view at a step, and none in a pass."""

    def passes(self, progress):
        return progress.epoch == 1

    def observe(self, batch):
        assert batch.strong_BDHW is None

    def losses(self, batch, progress):
        assert batch.strong_images_B3HW.shape == batch.images_B3HW.shape
        with torch.no_grad():
            assert torch.equal(batch.strong_BDHW, self.backbone.frozen(batch.strong_images_B3HW))
        return super().losses(batch, progress)


def finished(sample, classes, ratios=(0.5,)):
    """What cells of these methods leave behind when they are trained side by side."""
    jobs = [replace(sample.job(ratio), method_class=cls) for cls in classes for ratio in ratios]
    jobs = [
        replace(job, cell=replace(job.cell, method=f"{job.method_class.__name__}{n}")) for n, job in enumerate(jobs)
    ]
    events = list(train(jobs, sample.workbench()))
    assert [event.reason for event in events if isinstance(event, Failed)] == []
    return [event for event in events if isinstance(event, Finished)]


def test_a_strong_view_that_a_method_asks_for_is_made_and_changes_nobody_else(sample):
    plain, looks, both, strong = finished(sample, [Plain, Looks, LooksAtBoth, Strong])
    (alone,) = finished(sample, [Plain])
    assert np.array_equal(plain.scores_NC, alone.scores_NC) and np.array_equal(looks.scores_NC, alone.scores_NC)
    (strong_alone,) = finished(sample, [Strong])
    assert np.array_equal(strong.scores_NC, strong_alone.scores_NC)
    assert np.array_equal(both.scores_NC, strong.scores_NC) and not np.array_equal(strong.scores_NC, plain.scores_NC)


def test_a_strong_view_goes_through_the_frozen_part_once_for_all_that_ask_for_it(sample, frozen_calls):
    def calls(*classes):
        frozen_calls.clear()
        finished(sample, classes)
        return len(frozen_calls)

    steps = 4 * (NUM_TRAIN // PRESET.batch)
    once, strong, all_of_them = calls(Plain), calls(Strong), calls(Plain, Strong, Strong, Stronger)
    assert (strong - once, all_of_them - once) == (steps, 2 * steps)


def test_no_strong_view_is_made_where_nobody_asks(workbench):
    shared = next(iter(workbench.training_batches(0, 0, BATCH, strong=[None, None])))
    assert shared.strong == {}
    seen = next(iter(workbench.training_batches(0, 0, BATCH, strong=[None, STRONG, STRONG])))
    assert list(seen.strong) == [STRONG] and equal([seen], [shared])


# Mixed images


def test_equal_images_of_several_cells_go_through_the_frozen_part_once_a_step(sample, frozen_calls):
    images_B3HW = torch.rand(3, 3, SIDE, SIDE)
    frozen = FrozenPart(sample.backbone.frozen)
    with torch.no_grad():
        apart = [frozen(images_B3HW.clone()) for _ in range(2)]
        frozen.is_shared = True
        together = [frozen(images_B3HW.clone()) for _ in range(3)]
        assert len(frozen_calls) == 3 and equal([[*apart, apart[0]]], [together])
        frozen.forget()
        frozen(images_B3HW)
    assert len(frozen_calls) == 4


def test_images_that_differ_in_a_pixel_or_in_the_number_format_are_not_shared(sample, frozen_calls):
    images_B3HW = torch.rand(3, 3, SIDE, SIDE)
    other_B3HW = images_B3HW.clone()
    other_B3HW[2, 1, 5, 5] += 0.5
    frozen = FrozenPart(sample.backbone.frozen)
    frozen.is_shared = True
    with torch.no_grad():
        first_BDHW, other_BDHW, fewer_BDHW = frozen(images_B3HW), frozen(other_B3HW), frozen(images_B3HW[:2].clone())
        assert len(frozen_calls) == 3 and not torch.equal(first_BDHW, other_BDHW) and len(fewer_BDHW) == 2
        with torch.autocast("cpu", torch.bfloat16):
            assert frozen(images_B3HW).dtype == torch.bfloat16


def test_what_a_cell_changed_in_place_is_not_given_to_the_next(sample):
    frozen = FrozenPart(sample.backbone.frozen)
    frozen.is_shared = True
    images_B3HW = torch.rand(3, 3, SIDE, SIDE)
    as_it_was_B3HW = images_B3HW.clone()
    with torch.no_grad():
        frozen_BDHW = frozen(images_B3HW)
        expected_BDHW = frozen_BDHW.clone()
        frozen_BDHW.mul_(2)  # as a trained part that begins with an operation in place would do
        assert torch.equal(frozen(as_it_was_B3HW), expected_BDHW)
        frozen.forget()
        frozen(images_B3HW)
        images_B3HW.mul_(2)
        assert not torch.equal(frozen(images_B3HW), expected_BDHW)


def test_what_has_a_gradient_is_not_shared_and_what_is_kept_is_bounded(sample, frozen_calls):
    frozen = FrozenPart(sample.backbone.frozen)
    frozen.is_shared = True
    images_B3HW = torch.rand(2, 3, SIDE, SIDE, requires_grad=True)
    assert frozen(images_B3HW).requires_grad and frozen(images_B3HW).requires_grad
    assert len(frozen_calls) == 2
    many = [torch.rand(1, 3, SIDE, SIDE) for _ in range(KEEP_PASSES + 1)]
    for images_B3HW in many * 2:
        frozen(images_B3HW)
    assert len(frozen_calls) == 2 + KEEP_PASSES + 2


@pytest.mark.parametrize("name", ["ip_mixup", "pu_mlc", "logicmix", "splicemix"])
def test_methods_that_mix_images_share_their_frozen_pass_over_ratios_to_the_bit(sample, frozen_calls, name):
    method = load_methods()[name]

    def train_(*ratios):
        frozen_calls.clear()
        jobs = [sample.job(ratio) for ratio in ratios]
        jobs = [replace(job, method_class=method.cls, hyperparameters=method.hyperparameters()) for job in jobs]
        events = list(train(jobs, sample.workbench()))
        return [event for event in events if isinstance(event, Finished)], len(frozen_calls)

    (alone,), calls_alone = train_(0.5)
    (_, together, _), calls_together = train_(0.3, 0.5, 0.7)
    assert np.array_equal(alone.scores_NC, together.scores_NC)
    assert calls_together == calls_alone > 4 * (NUM_TRAIN // PRESET.batch)
