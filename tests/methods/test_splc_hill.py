import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.method import Progress
from tests.helpers.loss_samples import (
    C,
    N,
    assert_same,
    losses_of,
    method,
    random_labels,
    random_logits,
)


def slow_hill(logits_BC, labels_BC, focus=2, height=1.5):
    terms = {"known": torch.tensor(0.0), "assumed_absent": torch.tensor(0.0)}
    for n in range(len(labels_BC)):
        for c in range(C):
            p, p_m = torch.sigmoid(logits_BC[n, c].double()), torch.sigmoid(logits_BC[n, c].double() - 1)
            loss = -((1 - p_m) ** focus) * p_m.log() if labels_BC[n, c] == PRESENT else (height - p) * p**2
            key = "assumed_absent" if labels_BC[n, c] == UNKNOWN else "known"
            terms[key] = terms[key] + loss
    return {key: value / labels_BC.numel() for key, value in terms.items()}


def slow_splc(logits_BC, labels_BC, threshold, focus=2):
    terms = {key: torch.tensor(0.0) for key in ("known", "assumed_absent", "relabelled")}
    for n in range(len(labels_BC)):
        for c in range(C):
            x = logits_BC[n, c] - 1 if labels_BC[n, c] == PRESENT else logits_BC[n, c]
            p = torch.sigmoid(x.double())
            present, key = labels_BC[n, c] == PRESENT, "known"
            if labels_BC[n, c] == UNKNOWN:
                present = p > threshold
                key = "relabelled" if present else "assumed_absent"
            loss = -((1 - p) ** focus) * p.log() if present else -(p**focus) * (1 - p).log()
            terms[key] = terms[key] + loss
    return {key: value / labels_BC.numel() for key, value in terms.items()}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31 - 1), focus=st.sampled_from([0.0, 1.0, 2.0]))
def test_hill_equals_the_loops_with_its_gradient(seed, focus):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    ours = losses_of(logits_BC, labels_BC, method("hill", focus=focus))
    assert_same(ours, slow_hill(logits_BC, labels_BC, focus), logits_BC)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31 - 1), threshold=st.sampled_from([0.4, 0.6, 0.9]), focus=st.sampled_from([0.0, 1.0, 2.0])
)
def test_splc_equals_the_loops_with_its_gradient(seed, threshold, focus):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    ours = losses_of(logits_BC, labels_BC, method("splc", threshold=threshold, focus=focus))
    assert_same(ours, slow_splc(logits_BC, labels_BC, threshold, focus), logits_BC)


def test_hills_negative_is_steepest_at_one_half_and_flat_where_the_score_is_high():
    logits_BC = torch.tensor([[-1.0, 0.0, 3.0, 8.0]], requires_grad=True)
    losses = losses_of(logits_BC, torch.full((1, C), UNKNOWN, dtype=torch.int8), method("hill"))
    losses["assumed_absent"].backward()
    low, half, high, very_high = logits_BC.grad[0].tolist()
    assert 0 < very_high < high < low < half


def test_splc_relabels_unknown_entries_above_the_threshold_and_no_known_negative():
    logits_BC = torch.full((1, C), 3.0)
    labels_BC = torch.tensor([[UNKNOWN, UNKNOWN, ABSENT, PRESENT]], dtype=torch.int8)
    logits_BC[0, 1] = 0.3  # a score of 0.57
    one = method("splc")
    losses_of(logits_BC, labels_BC, one, Progress(5, 20))
    assert float(one.scalars()["relabelled_share"]) == 1 / C
    low = method("splc", threshold=0.55)
    losses_of(logits_BC, labels_BC, low, Progress(5, 20))
    assert float(low.scalars()["relabelled_share"]) == 2 / C
    assert low.pseudo_labels_NC()[0].tolist() == [PRESENT, PRESENT, ABSENT, PRESENT]
    losses_of(-logits_BC, labels_BC, low, Progress(6, 20))
    assert low.pseudo_labels_NC()[0].tolist() == labels_BC[0].tolist(), "what the score says when last seen"


@pytest.mark.parametrize(("epochs", "first"), [(20, 1), (10, 1), (40, 2), (4, 1)])
def test_splc_relabels_from_the_papers_second_epoch_on_and_never_in_the_first(epochs, first):
    def share(epoch):
        one = method("splc")
        losses = losses_of(torch.full((N, C), 3.0), random_labels(), one, Progress(epoch, epochs))
        assert (losses["relabelled"] > 0) == (float(one.scalars()["relabelled_share"]) > 0)
        return float(one.scalars()["relabelled_share"])

    assert [epoch for epoch in range(epochs) if share(epoch)] == list(range(first, epochs))


def test_extreme_logits_have_finite_losses_and_gradients():
    logits_BC = torch.tensor([[-300.0, 300.0, -300.0, 300.0]], requires_grad=True)
    for name in ("hill", "splc"):
        for label in (PRESENT, UNKNOWN, ABSENT):
            for focus in (0.5, 2.0):
                labels_BC = torch.full((1, C), label, dtype=torch.int8)
                losses = losses_of(logits_BC, labels_BC, method(name, focus=focus))
                (gradient,) = torch.autograd.grad(sum(losses.values()), logits_BC)
                assert sum(losses.values()).isfinite() and gradient.isfinite().all()
