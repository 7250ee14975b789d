import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.losses import normalised_bce
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

N, C = 12, 4
ENTRY = load_methods()["curriculum"]
CODE = sys.modules[ENTRY.cls.__module__]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(seed=0, unknown=0.5):
    draws = torch.rand(N, C, generator=generator(seed))
    return torch.where(draws < unknown, UNKNOWN, torch.where(draws < (1 + unknown) / 2, PRESENT, ABSENT)).to(torch.int8)


def method(labels_NC, **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=5, attention_width=4)
    task = Task(tuple("abcd"), labels_NC, 0.5, torch.randn(C, 7))
    curriculum = ENTRY.cls(backbone, task, ENTRY.hyperparameters(overrides))
    with torch.no_grad():
        curriculum.classifier.weight.mul_(60)  # sure of some entries and not of others
        curriculum.classifier.bias.zero_()
    return curriculum


def batch_of(labels_NC, rows=slice(None)):
    maps_NDHW = torch.randn(N, 3, 2, 2, generator=generator())
    return Batch(maps_NDHW[rows], maps_NDHW[rows], labels_NC[rows], torch.arange(N)[rows], generator())


def logits(curriculum, labels_NC):
    with torch.no_grad():
        return curriculum.eval()(batch_of(labels_NC).frozen_BDHW)


def after_round(labels_NC, curriculum=None, **overrides):
    """The method after one pass over its training set, in batches of five."""
    curriculum = curriculum or method(labels_NC, **overrides)
    curriculum.eval()
    with torch.no_grad():
        for start in range(0, N, 5):
            curriculum.observe(batch_of(labels_NC, slice(start, start + 5)))
    curriculum.end_pass(generator())
    return curriculum.train()


def slow_round(labels_NC, logits_NC, strategy, threshold=2.0, positive_threshold=5.0, proportion=0.8):
    filled = labels_NC.clone()
    unknown = [(n, c) for n in range(N) for c in range(C) if labels_NC[n, c] == UNKNOWN]
    surest = sorted(unknown, key=lambda entry: -abs(float(logits_NC[entry])))[: round(proportion * len(unknown))]
    for n, c in unknown:
        x = float(logits_NC[n, c])
        sure = {"score": abs(x) > threshold, "proportion": (n, c) in surest, "positives": x > positive_threshold}
        if sure[strategy]:
            filled[n, c] = PRESENT if x > 0 else ABSENT
    return filled


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("score", {}),
        ("score", {"threshold": 4.0}),
        ("proportion", {}),
        ("proportion", {"proportion": 0.3}),
        ("positives", {}),
        ("positives", {"positive_threshold": 1.0}),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_round_equals_the_loops(strategy, options, seed):
    labels_NC = random_labels(seed)
    curriculum = after_round(labels_NC, strategy=strategy, **options)
    logits_NC = logits(curriculum, labels_NC)
    expected_NC = slow_round(labels_NC, logits_NC, strategy, **options)
    assert curriculum.labels_NC.dtype == torch.int8 and torch.equal(curriculum.labels_NC, expected_NC)
    filled_NC = expected_NC[labels_NC == UNKNOWN]
    assert 0 < (filled_NC != UNKNOWN).sum() < len(filled_NC)  # the example has entries of both kinds
    shares = [float((filled_NC == state).float().mean()) for state in (PRESENT, ABSENT)]
    named = curriculum.scalars()
    assert [float(named[f"filled_{name}_share"]) for name in ("present", "absent")] == pytest.approx(shares)
    assert (curriculum.pseudo_labels_NC() == expected_NC.numpy()).all()


@pytest.mark.parametrize("strategy", CODE.STRATEGIES)
def test_known_labels_stay_however_wrong_the_model_finds_them(strategy):
    labels_NC = random_labels()
    curriculum = after_round(labels_NC, strategy=strategy)
    known_NC = labels_NC != UNKNOWN
    surely_wrong = (logits(curriculum, labels_NC).sign() == -labels_NC) & known_NC
    assert surely_wrong.any() and torch.equal(curriculum.labels_NC[known_NC], labels_NC[known_NC])


@pytest.mark.parametrize("strategy", CODE.STRATEGIES)
def test_a_second_round_forgets_the_first(strategy):
    labels_NC = random_labels()
    curriculum = after_round(labels_NC, strategy=strategy)
    with torch.no_grad():
        curriculum.classifier.weight.mul_(-0.3)
    after_round(labels_NC, curriculum)
    expected_NC = slow_round(labels_NC, logits(curriculum, labels_NC), strategy)
    assert torch.equal(curriculum.labels_NC, expected_NC)


def test_it_trains_on_what_it_filled_in_and_the_weight_counts_it():
    labels_NC = random_labels()
    curriculum = method(labels_NC)
    batch = batch_of(labels_NC, slice(3, 9))

    def expected(targets_NC):
        return normalised_bce(curriculum(batch.frozen_BDHW), targets_NC[3:9])

    losses = curriculum.losses(batch, Progress(0, 20))
    assert set(losses) == {"normalised_bce"}
    torch.testing.assert_close(losses["normalised_bce"], expected(labels_NC))
    after_round(labels_NC, curriculum)
    filled_NC = slow_round(labels_NC, logits(curriculum, labels_NC), "score")
    loss = curriculum.train().losses(batch, Progress(5, 20))["normalised_bce"]
    torch.testing.assert_close(loss, expected(filled_NC))
    assert loss != expected(labels_NC)
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in curriculum.parameters())


def test_its_constants_reach_the_loss():
    labels_NC, constants = random_labels(), {"slope": 1.0, "exponent": -1.0, "offset": 0.5}
    curriculum = method(labels_NC, **constants)
    batch = batch_of(labels_NC)
    expected = normalised_bce(curriculum(batch.frozen_BDHW), labels_NC, **constants)
    torch.testing.assert_close(curriculum.losses(batch, Progress(0, 20))["normalised_bce"], expected)


def test_rounds_are_at_the_start_and_then_every_interval():
    def due(epochs, **overrides):
        curriculum = method(random_labels(), **overrides)
        return [epoch for epoch in range(epochs) if curriculum.passes(Progress(epoch, epochs))]

    assert due(20) == [5, 10, 15]
    assert due(8) == [2, 4, 6]
    assert due(20, start=3, interval=10) == [3, 13]


@given(seed=st.integers(0, 2**31 - 1), strategy=st.sampled_from(CODE.STRATEGIES))
def test_what_hides_behind_an_unknown_label_changes_nothing(seed, strategy):
    """Two truths that differ only where the mask hides them give the same table and the same loss."""
    random = generator(seed)
    truth_NC = torch.where(torch.rand(N, C, generator=random) < 0.4, PRESENT, ABSENT).to(torch.int8)
    known_NC = torch.rand(N, C, generator=random) < 0.5
    results = []
    for other_NC in (truth_NC, torch.where(known_NC, truth_NC, -truth_NC)):
        labels_NC = torch.where(known_NC, other_NC, UNKNOWN).to(torch.int8)
        curriculum = after_round(labels_NC, strategy=strategy)
        loss = curriculum.losses(batch_of(labels_NC), Progress(5, 20))["normalised_bce"].item()
        results.append((curriculum.labels_NC.tolist(), loss))
    assert results[0] == results[1]


@pytest.mark.parametrize("strategy", CODE.STRATEGIES)
@pytest.mark.parametrize("unknown", [0.0, 1.0])
def test_a_round_with_nothing_or_everything_known(strategy, unknown):
    labels_NC = random_labels(unknown=unknown)
    curriculum = after_round(labels_NC, strategy=strategy)
    loss = curriculum.losses(batch_of(labels_NC), Progress(5, 20))["normalised_bce"]
    assert loss.isfinite() and all(value.isfinite() for value in curriculum.scalars().values())
    if unknown == 0:
        assert torch.equal(curriculum.labels_NC, labels_NC)


def test_a_restored_method_continues_as_the_saved_one():
    labels_NC = random_labels()
    curriculum, restored = after_round(labels_NC), method(labels_NC)
    assert not torch.equal(restored.labels_NC, curriculum.labels_NC)
    restored.load_state_dict(curriculum.state_dict())
    ours, theirs = (
        one.losses(batch_of(labels_NC), Progress(5, 20))["normalised_bce"] for one in (curriculum, restored)
    )
    assert ours.item() == theirs.item()
    assert restored.scalars() == curriculum.scalars()


def test_the_labels_it_was_given_stay_as_they_are():
    labels_NC = random_labels()
    before_NC = labels_NC.clone()
    after_round(labels_NC)
    assert torch.equal(labels_NC, before_NC)
