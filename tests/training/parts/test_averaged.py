"""Averaged weights: their arithmetic, what they are lent to, and that a run with them can be stopped and shared."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.method import AVERAGED, RAW, Progress, Recipe
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.tools.conformance.sample import NUM_TRAIN, PRESET, Sample
from mlrpl_bench.training.parts.averaged import AveragedWeights
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.trainer import Failed, StepDone, Working, train
from mlrpl_bench.training.workbench import SharedBatch
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.plain_method import Plain, entry_of

EPOCHS, EMA = 2, 4.0
STEPS = NUM_TRAIN // PRESET.batch


def test_five_steps_give_the_recorded_averages():
    recorded = golden("ema")
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    values_of = lambda part: {name.removeprefix(part): v for name, v in recorded.items() if name.startswith(part)}  # noqa: E731
    module.load_state_dict(values_of("start/"))
    averaged = AveragedWeights(module, float(recorded["decay"]))
    raw, expected = values_of("raw/"), values_of("averaged/")
    for step in range(5):
        module.load_state_dict({name: values[step] for name, values in raw.items()})
        averaged.update()
        with averaged.in_use():
            for name, value in module.state_dict().items():
                if name != "1.num_batches_tracked":  # copied here, cut to 0 there
                    assert_recorded(value, expected[name][step])


class Watched(Plain):
    """Has a table and a prototype beside its weights, looks at the training set, and notes by which weights."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.register_buffer("prototype_D", torch.zeros(backbone.channels))
        self.seen = []
        self.course = [self.weights()]

    def weights(self):
        tensors = [*self.parameters()]
        tensors += [b for name, b in self.named_buffers() if "running" in name]
        return torch.cat([tensor.detach().flatten() for tensor in tensors])

    def passes(self, progress):
        return progress.epoch == 1

    def observe(self, batch):
        self.seen.append(self.weights())
        self.prototype_D.copy_(self.trained(batch.frozen_BDHW).mean((0, 2, 3)))

    def after_step(self):
        self.course.append(self.weights())
        self.prototype_D += 1


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(entry_of(Plain), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def job(sample):
    def job(cls=Watched, ema=EMA, scored=AVERAGED) -> Job:
        usual = sample.job()
        recipe = replace(usual.cell.recipe, epochs=EPOCHS, ema=ema, scored=scored)
        return Job(replace(usual.cell, method=cls.__name__, recipe=recipe), cls, cls.Hyperparameters())

    return job


@pytest.fixture(scope="module")
def finish(sample):
    def finish(*jobs, states=None) -> list[Finished]:
        ends = [e for e in train(jobs, sample.workbench(), states) if isinstance(e, (Finished, Failed))]
        assert all(isinstance(end, Finished) for end in ends), ends
        return ends

    return finish


@pytest.fixture(scope="module")
def averaged(finish, job):
    return finish(job())[0]


@pytest.fixture(scope="module")
def raw(finish, job):
    return finish(job(scored=RAW))[0]


def run_through(sample, one: Job) -> CellRun:
    """Train by hand, so that the method stays at hand."""
    torch.manual_seed(0)
    run = CellRun(one, sample.workbench())
    for epoch in range(EPOCHS):
        run.look_at_training_set(Progress(epoch, EPOCHS, 0, STEPS))
        run.start_epoch(Progress(epoch, EPOCHS, 0, STEPS))
        for step, shared in enumerate(run.workbench.training_batches(0, epoch, PRESET.batch)):
            run.step(shared, Progress(epoch, EPOCHS, step, STEPS))
    return run


def test_the_average_is_that_of_a_loop_over_the_steps_and_passes_see_it(sample, job):
    run = run_through(sample, job())
    decay = np.exp(-20 / (EMA * EPOCHS * STEPS))
    assert run.cell.recipe.decay(STEPS) == pytest.approx(decay)
    expected, at_the_pass = run.method.course[0].double(), None
    for number, weights in enumerate(run.method.course[1:], start=1):
        expected = decay * expected + (1 - decay) * weights.double()
        if number == STEPS:
            at_the_pass = expected.clone()
    torch.testing.assert_close(run.method.seen[-1].double(), at_the_pass, rtol=1e-5, atol=1e-6)
    live = run.method.weights()
    assert torch.equal(live, run.method.course[-1])
    assert not torch.allclose(expected.float(), live, rtol=1e-5, atol=1e-6)
    run.method.eval()
    with run.averaged.in_use():
        torch.testing.assert_close(run.method.weights().double(), expected, rtol=1e-5, atol=1e-6)
        assert run.method.prototype_D.mean() > STEPS - 1  # as it is, not an average of what it was
    assert torch.equal(run.method.weights(), live)


def test_saved_weights_give_the_scores_and_the_others_theirs(sample, job, averaged):
    run = CellRun(job(), sample.workbench())
    run.method.load_state_dict(averaged.weights)
    run.method.eval()
    scores_NC = torch.cat([run.logits_BC(shared) for shared in run.workbench.in_order("test", PRESET.batch)]).numpy()
    assert np.array_equal(scores_NC, averaged.scores_NC)
    assert not np.array_equal(averaged.other_weights.scores_NC, averaged.scores_NC)


def test_which_weights_count_is_the_recipes_choice_and_both_are_kept(averaged, raw, sample):
    assert (averaged.other_weights.name, raw.other_weights.name) == (RAW, AVERAGED)
    assert np.array_equal(averaged.other_weights.scores_NC, raw.scores_NC)
    assert np.array_equal(raw.other_weights.scores_NC, averaged.scores_NC)
    for end in (averaged, raw):
        expected = metrics.evaluate(end.other_weights.scores_NC, sample.splits["test"].labels_NC)
        np.testing.assert_equal(end.other_weights.metrics, expected)
        assert end.history[-1]["test.mAP"] == end.metrics["mAP"]
    assert averaged.metrics["mAP"] == raw.other_weights.metrics["mAP"]


def test_an_average_changes_nothing_in_training(finish, job):
    """Raw weights, losses and scores are those without an average, if no pass over the training set sees it."""

    class Apart(Plain):
        pass

    without, beside = finish(job(Apart, ema=None))[0], finish(job(Apart, scored=RAW))[0]
    assert without.other_weights is None
    assert np.array_equal(without.scores_NC, beside.scores_NC)
    assert all(torch.equal(without.weights[name], beside.weights[name]) for name in without.weights)


def equal(one: Finished, other: Finished) -> bool:
    return (
        np.array_equal(one.scores_NC, other.scores_NC)
        and np.array_equal(one.other_weights.scores_NC, other.other_weights.scores_NC)
        and np.array_equal(one.train_scores_NC, other.train_scores_NC)
        and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    )


def test_in_a_group_as_alone(finish, job, averaged):
    together = finish(job(), job(Plain, ema=None), job(scored=RAW))
    assert equal(together[0], averaged)


@pytest.mark.parametrize("stop", [(0, 2), (1, 1), (1, STEPS), "while scoring"])
def test_a_stopped_run_goes_on_to_the_same_bits(stop, sample, job, finish, averaged):
    one = job()
    for event in train([one], sample.workbench(), pause_seconds=0):
        if isinstance(event, StepDone) and (event.epoch, event.step) == stop:
            break
        if stop == "while scoring" and isinstance(event, Working):
            held = event.states()
            if held and held[one.cell]["epoch"] == EPOCHS - 1:
                break
    states = {cell: _as_written(state) for cell, state in event.states().items()}
    assert "averaged" in states[one.cell]
    (end,) = finish(one, states=states)
    assert equal(end, averaged)


def _as_written(state):
    """As a checkpoint keeps it: nothing in it is shared with the run."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_averages_of_other_weights_are_refused():
    averaged = AveragedWeights(nn.Linear(2, 3), 0.5)
    with pytest.raises(ValueError, match="not those of this method"):
        averaged.restore(AveragedWeights(nn.Linear(3, 2), 0.5).state())


def test_weights_that_are_not_trained_have_no_average():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2).requires_grad_(False))
    assert set(AveragedWeights(module, 0.5).state()) == {"0.weight", "0.bias"}


def test_an_error_while_the_average_is_lent_gives_the_method_its_own_weights_back():
    module = nn.Linear(2, 3)
    averaged, own = AveragedWeights(module, 0.5), module.weight.detach() + 1
    with torch.no_grad():
        module.weight.add_(1)
    with pytest.raises(ZeroDivisionError), averaged.in_use():
        assert not torch.equal(module.weight, own)
        raise ZeroDivisionError
    assert torch.equal(module.weight, own)


def test_a_time_constant_is_in_epochs_of_20():
    assert Recipe(ema=2.0, epochs=20).decay(100) == pytest.approx(np.exp(-1 / 200))
    assert Recipe(ema=2.0, epochs=5).decay(100) == pytest.approx(np.exp(-1 / 50))


def test_an_image_alone_is_scored_by_what_was_loaded(sample, job):
    """Whoever only asks a trained method loads its weights, and no average stands in their place."""
    run = CellRun(job(), sample.workbench())
    shared = next(iter(run.workbench.in_order("test", PRESET.batch)))
    run.method.eval()
    with torch.no_grad():
        for parameter in run.method.parameters():
            parameter.zero_()
    assert not run.logits_BC(SharedBatch(*shared)).any()
