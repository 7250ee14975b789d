import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.mixing import symmetric_beta
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.loss_samples import (
    LATE,
    C,
    N,
    assert_same,
    batch_of,
    generator,
    losses_of,
    method,
    random_labels,
    random_logits,
)

CODE = sys.modules[load_methods()["pu_mlc"].cls.__module__]


def slow_loss(logits_BC, labels_BC, scale=1.0, balance=0.55):
    """Category by category; temperature and weight are numbers, so they have no gradient."""
    rows = len(labels_BC)
    unlabelled = present = torch.tensor(0.0)
    for c in range(C):
        column = [logits_BC[n, c].item() for n in range(rows)]
        centre = sum(column) / rows
        deviation = math.sqrt(sum((x - centre) ** 2 for x in column) / (rows - 1)) if rows > 1 else math.inf
        temperature = min(1.0, scale * deviation)
        scores = [torch.sigmoid(logits_BC[n, c].double() / temperature) for n in range(rows)]
        mean = sum(scores) / rows
        unlabelled = unlabelled + mean.item() ** balance * mean.log()
        positives = [scores[n].log() for n in range(rows) if labels_BC[n, c] == PRESENT]
        if positives:
            present = present - sum(positives) / len(positives)
    return {"unlabelled": unlabelled / C, "present": present / C}


def slow_mixup(one, batch, share):
    """Pair by pair: image i of the first half with image i of the second."""
    half, total = len(batch.labels_BC) // 2, torch.tensor(0.0)
    logits_BC = one(batch.frozen_BDHW)
    mixed = [share * batch.images_B3HW[i] + (1 - share) * batch.images_B3HW[half + i] for i in range(half)]
    mixed_BC = one(one.backbone.frozen(torch.stack(mixed)))
    for i in range(half):
        for c in range(C):
            first, second = (
                1.0 if batch.labels_BC[n, c] == PRESENT else torch.sigmoid(logits_BC[n, c].double())
                for n in (i, half + i)
            )
            target = torch.as_tensor(share * first + (1 - share) * second)
            total = total + (target.log() - torch.sigmoid(mixed_BC[i, c].double()).log()) ** 2
    return total / (half * C)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 6),
    spread=st.sampled_from([0.3, 3.0]),  # temperatures below and at 1
    scale=st.sampled_from([1.0, 2.0]),
    balance=st.sampled_from([0.0, 0.55, 0.85]),
)
def test_the_loss_is_that_of_the_loops_with_its_gradient(seed, rows, spread, scale, balance):
    logits_BC, labels_BC = random_logits(rows, seed, spread), random_labels(rows, seed)
    one = method("pu_mlc", temperature=scale, balance=balance, mixup=0.0)
    ours = losses_of(logits_BC, labels_BC, one)
    assert_same(ours, slow_loss(logits_BC, labels_BC, scale, balance), logits_BC)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), rows=st.integers(2, 7))
def test_mixup_equals_the_loops_with_the_gradient_of_every_parameter(seed, rows):
    labels_BC = random_labels(rows, seed)
    one, batch = method("pu_mlc", mixup=0.7), batch_of(labels_BC, seed)
    share = symmetric_beta(0.3, generator(seed)).item()
    ours = one.losses(batch, LATE)["mixup"]
    theirs = 0.7 * slow_mixup(one, batch, share).float()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    parameters = [value for value in one.parameters() if value.requires_grad]
    gradients = (torch.autograd.grad(loss, parameters) for loss in (ours, theirs))
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-5)


def test_mixed_images_go_through_the_frozen_part_without_a_gradient():
    class Doubled(nn.Module):
        def forward(self, images_B3HW):
            assert not torch.is_grad_enabled()
            return 2 * images_B3HW

    labels_BC = random_labels(4)
    one, batch = method("pu_mlc"), batch_of(labels_BC)
    object.__setattr__(one.backbone, "frozen", Doubled())
    seen = []
    one.trained.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    one.losses(batch, LATE)
    share = symmetric_beta(0.3, generator(0))
    torch.testing.assert_close(seen[0], batch.frozen_BDHW)
    mixed = 2 * (share * batch.images_B3HW[:2] + (1 - share) * batch.images_B3HW[2:])
    torch.testing.assert_close(seen[1], mixed)


def test_the_targets_of_mixup_are_trained_too():
    labels_BC = torch.full((2, C), UNKNOWN, dtype=torch.int8)
    logits_BC, mixed_BC = random_logits(2), random_logits(1, seed=1)
    one = method("pu_mlc")
    given_logits = iter([logits_BC, mixed_BC])
    one.forward = lambda frozen_BDHW: next(given_logits)
    gradients = torch.autograd.grad(one.losses(batch_of(labels_BC), LATE)["mixup"], [logits_BC, mixed_BC])
    assert all(gradient.abs().min() > 0 for gradient in gradients)


def test_known_negatives_are_thrown_away():
    labels_BC = random_labels()
    without = torch.where(labels_BC == ABSENT, UNKNOWN, labels_BC)
    one = [method("pu_mlc", labels_BC).losses(batch_of(labels), LATE) for labels in (labels_BC, without)]
    assert {key: loss.item() for key, loss in one[0].items()} == {key: loss.item() for key, loss in one[1].items()}


def test_a_category_without_a_known_positive_keeps_the_unlabelled_term_only():
    logits_BC, labels_BC = random_logits(), random_labels()
    labels_BC[:, 1] = ABSENT
    losses = losses_of(logits_BC, labels_BC, method("pu_mlc", mixup=0.0))
    (present,) = torch.autograd.grad(losses["present"], logits_BC, retain_graph=True)
    (unlabelled,) = torch.autograd.grad(losses["unlabelled"], logits_BC)
    assert not present[:, 1].any() and unlabelled[:, 1].all()


def test_the_temperature_of_equal_logits_and_of_one_image_is_finite():
    same_C = CODE.temperatures(torch.full((5, C), 0.3), 1.0)
    torch.testing.assert_close(same_C, torch.full((C,), 1e-3))
    torch.testing.assert_close(CODE.temperatures(torch.zeros(1, C), 1.0), torch.ones(C))
    losses = losses_of(torch.zeros(5, C, requires_grad=True), random_labels(5), method("pu_mlc", mixup=0.0))
    assert all(loss.isfinite() for loss in losses.values())


def test_extreme_logits_have_finite_losses_and_gradients():
    logits_BC = torch.tensor([[-300.0, 300.0, -300.0, 300.0], [300.0, 300.0, -300.0, -300.0]], requires_grad=True)
    for label in (PRESENT, UNKNOWN):
        losses = losses_of(logits_BC, torch.full((2, C), label, dtype=torch.int8), method("pu_mlc", mixup=0.0))
        (gradient,) = torch.autograd.grad(sum(losses.values()), logits_BC)
        assert sum(losses.values()).isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_blend_of_one_image_only_has_finite_losses_and_gradients(share, monkeypatch):
    monkeypatch.setattr(CODE, "symmetric_beta", lambda shape, generator: torch.tensor(share))
    one, batch = method("pu_mlc"), batch_of(random_labels(4))
    loss = one.losses(batch, LATE)["mixup"]
    torch.testing.assert_close(loss, slow_mixup(one, batch, share).float(), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(value.grad.isfinite().all() for value in one.parameters())


def test_the_reported_temperature_and_score_are_means_over_the_epoch_so_far():
    one = method("pu_mlc", mixup=0.0)
    for step, (value, expected) in enumerate([(50.0, 1.0), (-50.0, 0.5)]):
        losses_of(torch.full((N, C), value), random_labels(), one, Progress(0, 20, step, 2))
        assert float(one.scalars()["mean_score"]) == pytest.approx(expected)
        assert float(one.scalars()["mean_temperature"]) == pytest.approx(1e-3)
