"""What a finishing step is given, what it can reach, and that a run with one can be stopped and shared."""

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.finishing import FinishingStep, LinearHead, derived
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.tools.conformance.sample import NUM_CATEGORIES, NUM_TRAIN, PRESET, Sample
from mlrpl_bench.training.parts import finishing
from mlrpl_bench.training.parts.finishing import HeadRefit, last_inputs
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.trainer import Failed, StepDone, Working, train
from mlrpl_bench.utils.errors import UserError
from tests.helpers.plain_method import Plain
from tests.helpers.reachable import arrays_within

EPOCHS = 2
STEPS = NUM_TRAIN // PRESET.batch
METHODS = load_methods()


class Doubling(FinishingStep):
    """Doubles the weights of every category but the first, in the last of two rounds; the last row is held out."""

    seen: ClassVar[list] = []

    def held_out(self, num_rows, seed):
        return torch.arange(num_rows) == num_rows - 1

    def rounds(self):
        return 2

    def refit(self, entries, round_):
        self.seen.append((round_, entries))
        return (2 * entries.weight_D, entries.bias + round_) if entries.category else None

    def scalars(self):
        return {"doubled": NUM_CATEGORIES - 1}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(METHODS["partial_bce"], tmp_path_factory.mktemp("images"))


@pytest.fixture
def job(sample):
    def job(name="partial_bce", step=Doubling) -> Job:
        Doubling.seen = []
        cls = derived(METHODS[name].cls, finishing=step)
        usual = sample.job().cell
        recipe = replace(cls.recipe.resolve(sample.preset), epochs=EPOCHS)
        return Job(replace(usual, method=name, recipe=recipe), cls, METHODS[name].hyperparameters())

    return job


@pytest.fixture
def finish(sample):
    def finish(*jobs, states=None):
        ends = [e for e in train(jobs, sample.workbench(), states) if isinstance(e, (Finished, Failed))]
        assert all(isinstance(end, Finished) for end in ends), ends
        return ends

    return finish


def test_the_last_rounds_weights_are_in_the_layer_and_every_round_starts_from_the_trained_ones(job, finish):
    (end,) = finish(job())
    first, second = ([entries for round_, entries in Doubling.seen if round_ == number] for number in range(2))
    assert [entries.category for entries in second] == list(range(NUM_CATEGORIES))
    for before, again in zip(first, second, strict=True):
        assert torch.equal(before.weight_D, again.weight_D)
        factor, shift = (2, 1) if before.category else (1, 0)
        assert torch.equal(end.weights["classifier.weight"][before.category], factor * before.weight_D)
        assert torch.equal(end.weights["classifier.bias"][before.category], before.bias + shift)
    assert end.history[-1]["scalar.doubled"] == NUM_CATEGORIES - 1


def test_images_that_are_held_out_are_no_part_of_the_known_ratio(job, sample):
    """Else a method that counts labels by it would expect fewer positives than an image has."""
    run = CellRun(job("epr"), sample.workbench())
    known_NC = run.labels_NC[:-1]
    per_image = (known_NC == PRESENT).sum().item() / len(known_NC) / run.cell.ratio
    assert run.method.expected == pytest.approx(per_image) and (run.labels_NC[-1] == UNKNOWN).all()


@pytest.mark.parametrize("name", ["partial_bce", "ssgrl"])
def test_features_are_what_the_last_layer_is_given_of_images_as_they_are_tested(name, job, sample):
    """Logits before the refit follow from features, weights and biases, entry by entry."""
    run, scores = CellRun(job(name), sample.workbench()), []
    run.method.eval()
    for shared in run.workbench.in_order("train", PRESET.batch):
        scores.append(run.logits_BC(shared))
        run.gather(shared)
    run.end_gathering()
    scores_NC, labels_NC = torch.cat(scores), run.refit.labels_NC
    assert len(Doubling.seen) == NUM_CATEGORIES
    for _, entries in Doubling.seen:
        rows_K = (labels_NC[:, entries.category] != UNKNOWN).nonzero().flatten()
        assert entries.features_KD.dtype == torch.float32 and len(entries.features_KD) == len(rows_K)
        logits_K = entries.features_KD @ entries.weight_D + entries.bias
        torch.testing.assert_close(logits_K, scores_NC[rows_K, entries.category], rtol=1e-4, atol=1e-4)
        assert torch.equal(entries.present_K, labels_NC[rows_K, entries.category] == PRESENT)
        assert torch.equal(entries.held_K, rows_K == NUM_TRAIN - 1)


def test_features_of_the_categories_own_are_gathered_as_many_at_a_time_as_fit(job, finish, monkeypatch):
    passes = []
    end_pass = HeadRefit.end_pass
    monkeypatch.setattr(HeadRefit, "end_pass", lambda self: (passes.append(list(self._portion)), end_pass(self))[1])
    (at_once,) = finish(job("ssgrl"))
    assert passes == 2 * [list(range(NUM_CATEGORIES))]
    passes.clear()
    monkeypatch.setattr(finishing, "MOST_BYTES", 1)
    (one_by_one,) = finish(job("ssgrl"))
    assert passes == 2 * [[category] for category in range(NUM_CATEGORIES)]
    assert equal(at_once, one_by_one)


def test_a_portion_has_as_many_categories_as_their_known_features_fit(monkeypatch):
    known_C, width = (3, 1, 2, 4), 5
    labels_NC = (torch.arange(max(known_C))[:, None] < torch.tensor(known_C)).to(torch.int8)
    one = HeadRefit(SimpleNamespace(final_layer=lambda: None), None, labels_NC, None)
    monkeypatch.setattr(finishing, "MOST_BYTES", (known_C[0] + known_C[1]) * width * torch.float32.itemsize)
    features_BCD, portions = torch.zeros(2, len(known_C), width), []
    while one._first < len(known_C):
        portions.append(list(one._next_portion(features_BCD)))
        one._first += len(portions[-1])
    assert portions == [[0, 1], [2], [3]]


def equal(one, other):
    return (
        np.array_equal(one.scores_NC, other.scores_NC)
        and np.array_equal(one.train_scores_NC, other.train_scores_NC)
        and all(torch.equal(one.weights[name], other.weights[name]) for name in {*one.weights, *other.weights})
    )


def test_in_a_group_as_alone(job, finish):
    together = finish(job("ssgrl"), job(), job(step=None))
    assert equal(together[0], finish(job("ssgrl"))[0]) and equal(together[1], finish(job())[0])


@pytest.mark.parametrize("stop", [(1, 1), (1, STEPS), "after the refit"])
def test_a_stopped_run_refits_once(stop, sample, job, finish):
    one, looks = job(), 0
    for event in train([one], sample.workbench(), pause_seconds=0):
        if isinstance(event, StepDone) and (event.epoch, event.step) == stop:
            break
        looks += isinstance(event, Working) and len(Doubling.seen) == 2 * NUM_CATEGORIES
        if stop == "after the refit" and looks == 2:  # the second one is while test images are scored
            break
    states = {cell: _as_written(state) for cell, state in event.states().items()}
    assert len(states) == 1
    assert equal(finish(one, states=states)[0], finish(job())[0])


def _as_written(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_step_that_looks_for_test_images_and_hidden_labels_everywhere_finds_none(sample, job, finish):
    found, looked = [], set()
    train_NC, test_NC = (sample.splits[name].labels_NC for name in ("train", "test"))

    class Searcher(Doubling):
        def __init__(self, hyperparameters):
            super().__init__(hyperparameters)
            self.look("__init__", (self, hyperparameters))

        def look(self, where, things):
            looked.add(where)
            for path, array in arrays_within(things):
                if array.shape[:1] == (len(test_NC),) or array.shape == train_NC.shape:
                    found.append((where, path))

        def held_out(self, num_rows, seed):
            self.look("held_out", (self, num_rows, seed))
            return super().held_out(num_rows, seed)

        def refit(self, entries, round_):
            self.look("refit", (self, entries))
            return super().refit(entries, round_)

        def scalars(self):
            self.look("scalars", self)
            return super().scalars()

    finish(job(step=Searcher))
    assert looked == {"__init__", "held_out", "refit", "scalars"}
    assert found == []


def test_a_searcher_would_find_them(sample):
    """What the test above looks for is found where it is planted."""
    planted = type("Step", (), {})()
    planted.closure = (lambda labels: lambda: labels)(sample.splits["test"].labels_NC)
    assert [array.shape[0] for _, array in arrays_within(planted)] == [len(sample.splits["test"])]


def test_labels_of_test_images_and_hidden_ones_change_no_weight(sample, job, finish):
    """The same weights whatever the complete labels are, where the known ones are the same."""
    (end,) = finish(job())
    workbench = sample.workbench()
    known_NC = workbench.masks(0.5, 0)
    for name in ("train", "test"):
        split = workbench.splits[name]
        other_NC = -split.labels_NC if name == "test" else np.where(known_NC, split.labels_NC, -split.labels_NC)
        workbench.splits[name] = replace(split, labels_NC=other_NC)
    workbench.masks = lambda ratio, seed: known_NC
    ends = [event for event in train([job()], workbench) if isinstance(event, Finished)]
    assert all(torch.equal(ends[0].weights[name], end.weights[name]) for name in end.weights)
    assert not np.array_equal(ends[0].metrics["AP_C"], end.metrics["AP_C"])


class Bent(Plain):
    """Has a linear head, whose outputs are bent before they are logits."""

    class Head(LinearHead, nn.Linear):
        def linear(self):
            return self.weight, self.bias

        def inputs(self, features_BD):
            return features_BD

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.classifier = self.Head(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW) ** 3


class StraightAtFirst(Bent):
    """Has logits that are the linear head's until it is trained."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.bend = nn.Parameter(torch.zeros(()))

    def forward(self, frozen_BDHW):
        return (1 + self.bend) * Plain.forward(self, frozen_BDHW)


class TwoHeads(Bent):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.other = self.Head(2, 2)


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Plain, "no last linear layer"),
        (TwoHeads, "2 last linear layers"),
        (Bent, "scores are not"),
        (StraightAtFirst, "scores are not"),
    ],
)
def test_a_method_without_one_last_linear_layer_is_refused_in_a_line_before_training(cls, said, sample, job):
    one = job()
    bad = replace(one, method_class=derived(cls, finishing=Doubling), hyperparameters=cls.Hyperparameters())
    (failed,) = train([bad], sample.workbench())
    assert isinstance(failed, Failed) and said in failed.reason and "final_layer()" in failed.reason


def test_what_is_tried_before_training_changes_nothing(sample, job):
    torch.manual_seed(0)
    plain, followed = CellRun(job(step=None), sample.workbench()), CellRun(job(), sample.workbench())
    states = plain.method.state_dict(), followed.method.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_compiled_run_is_refused(sample, job):
    workbench = sample.workbench()
    workbench.compiled = True
    with pytest.raises(UserError, match="--compile rules out"):
        CellRun(job(), workbench)


def test_logits_that_stop_following_the_layer_are_refused_when_features_are_gathered(sample, job):
    run = CellRun(job(), sample.workbench())
    shared = next(iter(run.workbench.in_order("train", PRESET.batch)))
    run.method.eval()
    run.method.forward = lambda frozen_BDHW: 1.05 * type(run.method).forward(run.method, frozen_BDHW)
    with pytest.raises(UserError, match="are not those of one last linear layer"):
        last_inputs(run.method, run.refit.head, shared.frozen_BDHW)
