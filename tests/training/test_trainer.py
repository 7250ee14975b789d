"""Cells that are trained together get the scores that they get alone, whatever hooks they use and whoever fails."""

import random
from dataclasses import replace
from functools import cache
from types import MethodType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import normalise
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import ParameterGroup
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.tools.conformance.sample import NUM_CATEGORIES, NUM_TRAIN, PRESET, SIDE, Sample
from mlrpl_bench.training import workbench
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone, train
from tests.helpers.plain_method import Plain, entry_of
from tests.helpers.reachable import arrays_within

EPOCHS = 2
STEPS = NUM_TRAIN // PRESET.batch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


class Pass(Plain):
    """Looks at the training set for each category's mean feature, and draws a little in the end."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.register_buffer("means_CD", torch.zeros(len(task.categories), backbone.channels))
        self.register_buffer("counts_C", torch.zeros(len(task.categories)))

    def passes(self, progress):
        if progress.epoch == 1:
            self.means_CD.zero_()
            self.counts_C.zero_()
        return progress.epoch == 1

    def observe(self, batch):
        present_BC = (batch.labels_BC == PRESENT).float()
        self.means_CD += present_BC.T @ self.trained(batch.frozen_BDHW).mean((2, 3))
        self.counts_C += present_BC.sum(0)

    def end_pass(self, generator):
        self.means_CD /= self.counts_C.clamp(min=1)[:, None]
        self.means_CD *= torch.rand(self.means_CD.shape, generator=generator) + torch.rand(self.means_CD.shape)

    def forward(self, frozen_BDHW):
        features_BD = self.trained(frozen_BDHW).mean((2, 3))
        return self.classifier(features_BD) + F.normalize(features_BD) @ F.normalize(self.means_CD).T


class Table(Plain):
    """Supplies unknown labels by a learned entry and a running mean of its own scores, one for each image."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.learned_NC = nn.Parameter(torch.zeros(task.labels_NC.shape))
        self.register_buffer("bank_NC", torch.zeros(task.labels_NC.shape))

    def losses(self, batch, progress):
        logits_BC = self(batch.frozen_BDHW)
        bank_BC = self.bank_NC[batch.index_B].lerp(logits_BC.detach(), 0.5)
        self.bank_NC[batch.index_B] = bank_BC
        supplied_BC = torch.tanh(self.learned_NC[batch.index_B] + bank_BC)
        return {"bce": partial_bce(logits_BC, torch.where(batch.labels_BC == UNKNOWN, supplied_BC, batch.labels_BC))}


class TwoRates(Plain):
    """Trains the backbone at another rate and the classifier without decay."""

    def parameter_groups(self):
        return [
            ParameterGroup(list(self.trained.parameters()), lr_multiplier=0.1),
            ParameterGroup(list(self.classifier.parameters()), weight_decay=0.0),
        ]


class Mixing(Plain):
    """Mixes the images themselves, and so needs the frozen part."""

    def losses(self, batch, progress):
        share = torch.rand((), generator=batch.generator)
        images_B3HW = batch.images_B3HW.lerp(batch.images_B3HW.flip(0), share)
        with torch.no_grad():
            frozen_BDHW = self.backbone.frozen(images_B3HW)
        labels_BC = batch.labels_BC.float()
        return {"mixed": partial_bce(self(frozen_BDHW), labels_BC.lerp(labels_BC.flip(0), share))}


class MovingAverage(Plain):
    """Scores also with the mean of the classifiers it had."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.register_buffer("mean_CD", torch.zeros_like(self.classifier.weight))

    def after_step(self):
        self.mean_CD.lerp_(self.classifier.weight.detach(), 0.2)

    def forward(self, frozen_BDHW):
        features_BD = self.trained(frozen_BDHW).mean((2, 3))
        return self.classifier(features_BD) + (0 if self.training else F.linear(features_BD, self.mean_CD))


class Dropout(Plain):
    """Draws from torch's global generator, as dropout does, while training and in a pass."""

    def passes(self, progress):
        return progress.epoch == 1

    def observe(self, batch):
        torch.rand(3)

    def forward(self, frozen_BDHW):
        return self.classifier(F.dropout(self.trained(frozen_BDHW).mean((2, 3)), training=self.training))


HOOKS = (Pass, Table, TwoRates, Mixing, MovingAverage, Dropout)


class Seen(Plain):
    """Scores an image by what it was given of it."""

    def forward(self, frozen_BDHW):
        seen_BC = frozen_BDHW.mean((2, 3))[:, :NUM_CATEGORIES]
        return super().forward(frozen_BDHW) if self.training else seen_BC


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(entry_of(Plain), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def job(sample):
    def job(cls, ratio=0.5, seed=0) -> Job:
        usual = sample.job(ratio)
        recipe = replace(usual.cell.recipe, epochs=EPOCHS)
        return Job(replace(usual.cell, method=cls.__name__, recipe=recipe, seed=seed), cls, cls.Hyperparameters())

    return job


@pytest.fixture(scope="module")
def ends(sample, job):
    """How the cells of a group end, by the class of the method."""

    def ends(*classes, workers=0):
        events = train([job(cls) for cls in classes], sample.workbench(workers=workers))
        return {event.cell.method: event for event in events if isinstance(event, (Finished, Failed))}

    return ends


@pytest.fixture(scope="module")
def alone(ends):
    return cache(lambda cls: ends(cls)[cls.__name__])


@pytest.fixture(scope="module", params=[HOOKS, HOOKS[::-1]], ids=["in this order", "the other way round"])
def together(request, ends):
    return ends(*request.param)


def equal(one, other):
    """Whether two cells ended with the same numbers, to the bit."""
    return (
        np.array_equal(one.scores_NC, other.scores_NC)
        and np.array_equal(one.train_scores_NC, other.train_scores_NC)
        and all(np.array_equal(one.steps[name], other.steps[name]) for name in {*one.steps, *other.steps})
        and all(torch.equal(one.weights[name], other.weights[name]) for name in {*one.weights, *other.weights})
    )


def broken(hook, error=None):
    """A method that fails in one of its hooks."""

    def fail(self, *_, **__):
        raise error or RuntimeError("broken on purpose")

    return type("Broken", (Plain,), {"passes": lambda self, progress: True, hook: fail})


@pytest.mark.parametrize("cls", HOOKS, ids=lambda cls: cls.__name__)
def test_a_method_gets_together_with_others_what_it_gets_alone(cls, alone, together):
    assert equal(together[cls.__name__], alone(cls))


@pytest.mark.parametrize("cls", HOOKS, ids=lambda cls: cls.__name__)
def test_every_hook_makes_a_difference(cls, alone):
    assert not np.array_equal(alone(cls).scores_NC, alone(Plain).scores_NC)


@pytest.mark.parametrize("workers", [1, 3])
def test_scores_do_not_depend_on_the_number_of_loader_workers(workers, alone, ends):
    for name, end in ends(Pass, Mixing, workers=workers).items():
        assert equal(end, alone({"Pass": Pass, "Mixing": Mixing}[name]))


def test_the_same_cell_at_two_ratios_gets_in_a_group_what_it_gets_alone(sample, job):
    jobs = [job(Table, ratio=0.1), job(Table, ratio=0.9)]
    together = [event for event in train(jobs, sample.workbench()) if isinstance(event, Finished)]
    for end, single in zip(together, jobs, strict=True):
        (*_, by_itself) = train([single], sample.workbench())
        assert equal(end, by_itself)


def test_another_seed_gives_other_scores(sample, job, alone):
    (*_, end) = train([job(Plain, seed=1)], sample.workbench())
    assert not np.array_equal(end.scores_NC, alone(Plain).scores_NC)


@pytest.mark.parametrize("split", ["test", "train"])
def test_every_image_of_a_split_is_scored_once_and_in_order(split, sample, alone):
    pixels = np.stack(
        [np.asarray(ImageTransform(SIDE).test(decode(path))) for path in sample.splits[split].image_paths]
    )
    with torch.no_grad():
        frozen_NDHW = sample.backbone.frozen(normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    expected_NC = frozen_NDHW.mean((2, 3))[:, :NUM_CATEGORIES].numpy()
    scores_NC = alone(Seen).scores_NC if split == "test" else alone(Seen).train_scores_NC
    assert len(scores_NC) % PRESET.batch != 0
    assert scores_NC.shape == expected_NC.shape
    assert np.allclose(scores_NC, expected_NC, atol=1e-5)


def test_metrics_are_those_of_the_scores_against_the_complete_test_labels(sample, alone):
    end = alone(Plain)
    expected = metrics.evaluate(end.scores_NC, sample.splits["test"].labels_NC)
    np.testing.assert_equal(end.metrics, expected)


def test_events_come_step_by_step_and_epoch_by_epoch_and_every_cell_ends_once(sample, job):
    events = list(train([job(Plain), job(Table)], sample.workbench()))
    epoch = [("step", step + 1) for step in range(STEPS)] + ["Plain", "Table"]
    told = [
        ("step", event.step) if isinstance(event, StepDone) else event.cell.method
        for event in events
        if isinstance(event, (StepDone, EpochDone))
    ]
    assert told == EPOCHS * epoch
    assert {event.steps_per_epoch for event in events if isinstance(event, StepDone)} == {STEPS}
    ends = [event for event in events if not isinstance(event, Note)][-2:]  # these few steps may lead nowhere
    assert [type(event) for event in ends] == [Finished, Finished]
    assert [event.cells_in_group for event in ends] == [2, 2]


@pytest.mark.parametrize("evaluated", [(), (0,), (1,), range(EPOCHS)])
def test_epochs_without_evaluation_change_nothing_but_the_history(evaluated, sample, job, alone, monkeypatch):
    monkeypatch.setattr(workbench, "KEEP_FEATURES_BYTES", 0)  # as with splits that are too large to be kept
    bench, images = sample.workbench(), []
    hook = bench.backbone.frozen.register_forward_hook(lambda _, given, __: images.append(len(given[0])))
    events = list(train([job(Pass)], bench, evaluated=evaluated))
    hook.remove()
    (end,) = [event for event in events if isinstance(event, Finished)]
    times = len({*evaluated, EPOCHS - 1})
    num_train, num_test = (len(sample.splits[name]) for name in ("train", "test"))
    assert sum(images) == EPOCHS * STEPS * PRESET.batch + 2 * num_train + times * num_test
    assert equal(end, alone(Pass)) and end.metrics["mAP"] == alone(Pass).metrics["mAP"]
    rows = [event.row for event in events if isinstance(event, EpochDone)]
    assert rows == end.history and [set(row) for row in rows] == [set(row) for row in alone(Pass).history]
    for epoch, (row, usual) in enumerate(zip(rows, alone(Pass).history, strict=True)):
        is_scored = epoch in {*evaluated, EPOCHS - 1}
        assert all(np.isfinite(value) == is_scored for name, value in row.items() if name.startswith("test."))
        assert not is_scored or row["test.mAP"] == usual["test.mAP"]
    assert np.isfinite(end.best_metrics["mAP"]) and end.best_epoch in {*evaluated, EPOCHS - 1}


class Looking(Plain):
    """Tells where it looks."""

    def attention(self, frozen_BDHW):
        assert not self.training
        return frozen_BDHW[:, :NUM_CATEGORIES].abs()


def test_images_go_through_the_frozen_part_once_for_all_cells_and_never_for_the_examples_alone(
    sample, job, monkeypatch, alone
):
    monkeypatch.setattr(workbench, "KEEP_FEATURES_BYTES", 0)  # as with splits that are too large to be kept
    bench, images = sample.workbench(), []
    hook = bench.backbone.frozen.register_forward_hook(lambda _, given, __: images.append(len(given[0])))
    usual = job(Plain)
    averaged = replace(usual, cell=replace(usual.cell, recipe=replace(usual.cell.recipe, ema=2.0)))
    ends = [event for event in train([job(Looking), usual, averaged], bench) if isinstance(event, Finished)]
    hook.remove()
    num_train, num_test = (len(sample.splits[name]) for name in ("train", "test"))
    assert sum(images) == EPOCHS * (STEPS * PRESET.batch + num_test) + num_train
    assert [("attention" in end.examples) for end in ends] == [True, False, False]
    assert ends[2].other_weights is not None
    assert np.array_equal(ends[2].other_weights.scores_NC, alone(Plain).scores_NC)
    assert len(ends[0].examples["attention"]) == len(ends[0].examples["rows"])
    assert equal(ends[1], alone(Plain)) and np.array_equal(ends[0].scores_NC, ends[1].scores_NC)


def test_the_global_random_states_are_left_as_they_were(sample, job):
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    list(train([job(Dropout), job(Pass)], sample.workbench()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]


def test_the_global_random_states_do_not_matter(ends, alone):
    expected = alone(Dropout)
    torch.manual_seed(6)
    assert equal(ends(Dropout)["Dropout"], expected)


def test_training_that_is_broken_off_leaves_the_global_random_state_as_it_was(sample, job):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    events = train([job(Dropout)], sample.workbench())
    next(events)
    events.close()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_is_named_by_term_epoch_and_step(value, ends, alone):
    class Explodes(Plain):
        def losses(self, batch, progress):
            bad = float(value) if (progress.epoch, progress.step) == (1, 2) else 0.0
            return {**super().losses(batch, progress), "extra": self.classifier.bias.sum() * 0 + bad}

    end = ends(Explodes, Pass)
    assert isinstance(end["Explodes"], Failed)
    assert f"loss term 'extra' is {value} at epoch 1, step 2" in end["Explodes"].reason
    assert equal(end["Pass"], alone(Pass))


HOOK_NAMES = (
    "__init__",
    "forward",
    "losses",
    "passes",
    "observe",
    "end_pass",
    "parameter_groups",
    "after_step",
    "scalars",
    "pseudo_labels_NC",
    "attention",
)


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_a_method_that_raises_fails_and_the_others_go_on(hook, ends, alone):
    end = ends(broken(hook), Mixing)
    assert isinstance(end["Broken"], Failed)
    assert end["Broken"].reason == "RuntimeError: broken on purpose"
    assert "raise error or RuntimeError" in end["Broken"].traceback
    assert equal(end["Mixing"], alone(Mixing))


@pytest.mark.parametrize("error", [MemoryError("no room"), torch.OutOfMemoryError("CUDA out of memory\nTried 2 GiB")])
def test_a_method_that_runs_out_of_memory_fails_and_the_others_go_on(error, ends, alone):
    end = ends(broken("losses", error), Mixing)
    assert end["Broken"].reason == f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert equal(end["Mixing"], alone(Mixing))


@pytest.mark.parametrize("hook", ["__init__", "losses", "observe"])
def test_a_method_that_ends_the_program_fails_and_the_others_go_on(hook, ends, alone):
    end = ends(broken(hook, SystemExit(3)), Mixing)
    assert end["Broken"].reason == (
        "SystemExit: the method's code called sys.exit(3); it may raise an exception instead"
    )
    assert equal(end["Mixing"], alone(Mixing))


def test_the_reason_is_one_line_of_bearable_length(ends):
    reason = ends(broken("losses", ValueError("long\n" * 1000)))["Broken"].reason
    assert reason.startswith("ValueError: long long") and "\n" not in reason and len(reason) < 400


def test_a_group_in_which_every_cell_fails_ends(sample, job):
    events = list(train([job(broken("losses")), job(broken("__init__"))], sample.workbench()))
    assert [type(event) for event in events if not isinstance(event, StepDone)] == [Failed, Failed]


def test_a_person_who_interrupts_is_obeyed(sample, job):
    with pytest.raises(KeyboardInterrupt):
        list(train([job(broken("losses", KeyboardInterrupt()))], sample.workbench()))


@pytest.mark.parametrize("change", [{"ratio": 0.3}, {}])
def test_cells_of_one_setting_seed_and_length_may_be_grouped(change, sample, job):
    assert next(train([job(Plain), job(Plain, **change)], sample.workbench()))


def test_cells_of_two_seeds_are_not_grouped(sample, job):
    with pytest.raises(AssertionError, match="share setting, seed, epochs and batch"):
        next(train([job(Plain), job(Plain, seed=1)], sample.workbench()))


def leaks(thing, labels_NC, index_B=None):
    """Where the complete labels can be found: all of them, those of a batch, or which entries are present."""
    wanted = [labels_NC] if index_B is None else [labels_NC, labels_NC[index_B.numpy()]]
    return [
        path
        for path, array in arrays_within(thing)
        if any(np.array_equal(array, form) for labels in wanted for form in (labels, labels == PRESENT, labels.T))
    ]


def test_a_method_that_looks_for_the_complete_labels_everywhere_finds_none(sample, ends):
    found, looked = [], set()

    class Searcher(Pass):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            self.look("__init__", (backbone, task, hyperparameters, self))

        def look(self, where, things, index_B=None):
            looked.add(where)
            found.extend(leaks(things, sample.splits["train"].labels_NC, index_B))

        def passes(self, progress):
            self.look("passes", (progress, self))
            return super().passes(progress)

        def observe(self, batch):
            self.look("observe", (batch, self), batch.index_B)
            super().observe(batch)

        def end_pass(self, generator):
            self.look("end_pass", (generator, self))
            super().end_pass(generator)

        def losses(self, batch, progress):
            self.look("losses", (batch, progress, self), batch.index_B)
            return super().losses(batch, progress)

        def scalars(self):
            self.look("scalars", self)
            return {}

    assert isinstance(ends(Searcher)["Searcher"], Finished)
    assert looked == {"__init__", "passes", "observe", "end_pass", "losses", "scalars"}
    assert found == []


def test_the_search_does_find_complete_labels_where_they_are(sample, job):
    labels_NC = sample.splits["train"].labels_NC
    hidden_away = MethodType(lambda self: labels_NC, nn.Identity())
    assert leaks(sample.workbench(), labels_NC) == [".splits.['train'].labels_NC"]
    assert leaks(hidden_away, labels_NC) == [".__func__.<0>"]
    index_B = torch.tensor([3, 1])
    assert leaks({"batch": torch.from_numpy(labels_NC[[3, 1]])}, labels_NC, index_B) == [".['batch']"]


def test_at_ratio_1_a_method_is_given_the_complete_labels(sample, job):
    given = []

    class Keeps(Plain):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            given.append(task.labels_NC.numpy())

    next(train([job(Keeps, ratio=1.0)], sample.workbench()))
    assert np.array_equal(given[0], sample.splits["train"].labels_NC)


def test_a_pass_sees_every_training_image_once_in_order_and_without_gradient(ends):
    rows, modes = [], set()

    class Looks(Plain):
        def passes(self, progress):
            return True

        def observe(self, batch):
            rows.extend(batch.index_B.tolist())
            modes.add((self.training, torch.is_grad_enabled()))

    ends(Looks)
    assert rows == EPOCHS * list(range(NUM_TRAIN))
    assert modes == {(False, False)}


def test_the_images_of_a_pass_are_in_the_test_view(sample, ends):
    seen = []

    class Looks(Plain):
        def passes(self, progress):
            return progress.epoch == 0

        def observe(self, batch):
            seen.append(batch.images_B3HW)

    ends(Looks)
    image = ImageTransform(SIDE).test(decode(sample.splits["train"].image_paths[-1]))
    expected_3HW = normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0]
    assert torch.equal(seen[-1][-1], expected_3HW)


def test_the_batch_and_its_generator_are_the_same_for_every_method(ends):
    drawn = {}

    def recorder(name):
        def losses(self, batch, progress):
            draws = torch.rand(2, generator=batch.generator), torch.rand(2)
            address = progress.epoch, progress.step
            drawn.setdefault(address, []).append(torch.cat([*draws, batch.index_B, batch.images_B3HW.flatten()]))
            return Plain.losses(self, batch, progress)

        return type(name, (Plain,), {"losses": losses})

    ends(recorder("One"), recorder("Other"))
    assert len(drawn) == EPOCHS * STEPS
    assert all(torch.equal(one, other) for one, other in drawn.values())
    assert len({tuple(one[:4].tolist()) for one, _ in drawn.values()}) == EPOCHS * STEPS
