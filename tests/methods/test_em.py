import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.loss_samples import (
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

CODE = sys.modules[load_methods()["em"].cls.__module__]
NAMES = ("em", "em_apl")
EPS, NONE = 1e-5, -1.0


def neg_log(p):
    return -(p + EPS).log()


def slow(logits_BC, labels_BC, alpha, beta=0.0, soft_BC=None):
    """Entry by entry, in float64."""
    terms = {name: torch.tensor(0.0) for name in ("known", "negative_entropy", "soft_labels")}
    for n in range(len(labels_BC)):
        for c in range(labels_BC.shape[1]):
            p, q = torch.sigmoid(logits_BC[n, c].double()), torch.sigmoid(-logits_BC[n, c].double())
            s = NONE if soft_BC is None else soft_BC[n, c].item()
            if labels_BC[n, c] == PRESENT:
                terms["known"] = terms["known"] + neg_log(p)
            elif labels_BC[n, c] == ABSENT:
                terms["known"] = terms["known"] + neg_log(q)
            elif s == NONE:
                terms["negative_entropy"] = terms["negative_entropy"] - alpha * (p * neg_log(p) + q * neg_log(q))
            else:
                terms["soft_labels"] = terms["soft_labels"] + beta * (s * neg_log(p) + (1 - s) * neg_log(q))
    if soft_BC is None:
        del terms["soft_labels"]
    return {name: value / labels_BC.numel() for name, value in terms.items()}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1))
def test_em_equals_the_loops_with_its_gradient(seed):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    ours = losses_of(logits_BC, labels_BC, method("em", labels_BC, alpha=0.3))
    assert_same(ours, slow(logits_BC, labels_BC, 0.3), logits_BC)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1))
def test_em_apl_equals_the_loops_with_its_gradient(seed):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    one = method("em_apl", labels_BC, alpha=0.3, beta=0.7)
    draws_BC = torch.rand(N, C, generator=generator(seed + 1))
    # Also where the label is known: there it must count for nothing.
    one.soft_NC.copy_(torch.where(draws_BC < 0.5, draws_BC, NONE))
    ours = losses_of(logits_BC, labels_BC, one)
    assert_same(ours, slow(logits_BC, labels_BC, 0.3, 0.7, one.soft_NC), logits_BC)


# The numbers of the code published by the authors


def recorded_loss(recorded, k, name, labels_BC, **weights):
    one = method(name, labels_BC, **weights)
    if name == "em_apl":
        one.soft_NC.copy_(recorded["soft_BC"].nan_to_num(NONE))
    logits_BC = recorded["logits_BC"].clone().requires_grad_()
    loss = sum(losses_of(logits_BC, labels_BC, one).values())
    assert_recorded(loss, recorded["loss64_K"][k])
    assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_KBC"][k])


@pytest.mark.parametrize("k", range(4))
def test_recorded_losses_and_gradients_of_em(k):
    recorded = golden("em")
    recorded_loss(recorded, k, "em", recorded["labels_BC"], alpha=float(recorded["alpha_K"][k]))


@pytest.mark.parametrize("k", range(4))
def test_recorded_losses_and_gradients_of_em_apl(k):
    recorded = golden("em_apl")
    alpha, beta = float(recorded["alpha_K"][k]), float(recorded["beta_K"][k])
    recorded_loss(recorded, k, "em_apl", recorded["labels_BC"], alpha=alpha, beta=beta)


def test_recorded_loss_and_gradient_of_saturated_logits():
    recorded = golden("em", "saturated/")
    logits_BC, labels_BC = recorded["logits_BC"].requires_grad_(), recorded["labels_BC"]
    loss = sum(losses_of(logits_BC, labels_BC, method("em", labels_BC, alpha=float(recorded["alpha"]))).values())
    assert_recorded(loss, recorded["loss64"])
    assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_BC"])


def label(one, logits_NC, progress):
    """One pass, in batches, if the method wants it before that epoch; whether it did."""
    if not one.passes(progress):
        return False
    for first in range(0, len(logits_NC), 5):
        rows = slice(first, first + 5)
        one.forward = lambda frozen_BDHW, rows=rows: logits_NC[rows]
        batch = batch_of(one.labels_NC[rows])
        batch.index_B[:] = torch.arange(len(logits_NC))[rows]
        one.observe(batch)
    one.end_pass(generator())
    return True


def test_recorded_soft_labels_after_each_round():
    recorded = golden("apl")
    one = method("em_apl", recorded["labels_NC"], proportion=float(recorded["proportion"]))
    assert one.labels_per_round_C().tolist() == recorded["per_round_C"].tolist()
    # The round after the last epoch is not ours: five of the six count.
    for number, epoch_of_20 in enumerate(range(10, 20, 2)):
        assert label(one, recorded["logits_RNC"][number], Progress(epoch_of_20, 20))
        soft_NC = recorded["soft_RNC"][number].nan_to_num(NONE)
        assert torch.equal(one.soft_NC == NONE, soft_NC == NONE)
        assert_recorded(one.soft_NC, soft_NC)


# What follows from the equations


def test_without_epsilon_the_gradients_are_those_on_paper():
    logits_BC = random_logits()
    p_BC, q_BC, soft_BC = logits_BC.sigmoid(), (-logits_BC).sigmoid(), torch.rand(N, C, generator=generator(1))
    (of_entropy_BC,) = torch.autograd.grad(-CODE.entropy(logits_BC, epsilon=0).sum(), logits_BC)
    torch.testing.assert_close(of_entropy_BC, p_BC * q_BC * logits_BC, rtol=1e-4, atol=1e-6)
    (of_soft_BC,) = torch.autograd.grad(CODE.soft_loss(logits_BC, soft_BC, epsilon=0).sum(), logits_BC)
    torch.testing.assert_close(of_soft_BC, p_BC - soft_BC, rtol=1e-4, atol=1e-6)


def test_what_is_certain_and_wrong_has_a_bounded_loss_and_almost_no_gradient():
    logits_BC = torch.full((1, C), -30.0, requires_grad=True)
    loss = sum(losses_of(logits_BC, torch.full((1, C), PRESENT, dtype=torch.int8), method("em")).values())
    assert loss.item() == pytest.approx(-math.log(EPS), rel=1e-4)
    assert torch.autograd.grad(loss, logits_BC)[0].abs().max() < 1e-6


def test_before_the_first_round_em_apl_is_em_to_the_bit():
    labels_BC, grads = random_labels(), []
    for name in NAMES:
        logits_BC = random_logits()
        loss = sum(losses_of(logits_BC, labels_BC, method(name, labels_BC)).values())
        grads.append((loss.item(), torch.autograd.grad(loss, logits_BC)[0]))
    assert grads[0][0] == grads[1][0] and torch.equal(grads[0][1], grads[1][1])


# The rounds


def labelled_by_epoch(epochs, rows=60, **overrides):
    """Soft labels of each category after the pass before each epoch, and the epochs with a pass."""
    labels_NC = random_labels(rows, unknown=0.6)
    one, counts, passed = method("em_apl", labels_NC, **overrides), [], []
    for epoch in range(epochs):
        if label(one, random_logits(rows, seed=epoch).detach(), Progress(epoch, epochs)):
            passed.append(epoch)
        counts.append((one.soft_NC != NONE).sum(dim=0).tolist())
    unknown_C = (labels_NC == UNKNOWN).sum(dim=0).tolist()
    return counts, passed, [math.floor(0.9 * unknown / 5) for unknown in unknown_C]


def test_each_round_labels_a_fifth_of_nine_tenths_of_the_unknown_entries_for_good():
    counts, passed, per_round = labelled_by_epoch(20)
    assert passed == [10, 12, 14, 16, 18]
    for number, epoch in enumerate(passed, start=1):
        assert counts[epoch] == [number * count for count in per_round]


@pytest.mark.parametrize(("epochs", "passes"), [(1, [0]), (3, [2]), (4, [2, 3]), (10, [5, 6, 7, 8, 9])])
def test_a_short_run_makes_the_rounds_that_are_due_together(epochs, passes):
    counts, passed, per_round = labelled_by_epoch(epochs)
    due = sum(round(epoch * epochs / 20) < epochs for epoch in range(10, 20, 2))
    assert passed == passes
    assert counts[-1] == [due * count for count in per_round]


def test_the_lowest_scores_are_labelled_with_themselves_and_of_equal_ones_the_first_rows():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    labels_NC[0] = ABSENT
    one, logits_NC = method("em_apl", labels_NC), torch.zeros(N, C)
    logits_NC[0], logits_NC[7] = -9.0, -1.0
    label(one, logits_NC, Progress(14, 20))  # three rounds of floor(0.9 * 11 / 5) = 1
    labelled = (one.soft_NC != NONE).nonzero()
    assert labelled.tolist() == [[row, c] for row in (1, 2, 7) for c in range(C)]
    torch.testing.assert_close(one.soft_NC[7], torch.sigmoid(torch.full((C,), -1.0)))
    pseudo_NC = torch.from_numpy(one.pseudo_labels_NC())
    assert torch.equal(pseudo_NC == ABSENT, (one.soft_NC != NONE) | (labels_NC == ABSENT))


def test_of_many_equal_keys_the_first_rows_are_the_lowest():
    candidates_NC = torch.ones(1000, 2, dtype=torch.bool)  # few would be in order after any sort
    chosen_NC = CODE.lowest(torch.zeros(1000, 2), candidates_NC, torch.tensor([300, 0]))
    assert chosen_NC[:, 0].tolist() == [True] * 300 + [False] * 700 and not chosen_NC[:, 1].any()


def test_a_soft_label_stays_when_the_network_has_changed_its_mind():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    one = method("em_apl", labels_NC)
    label(one, torch.arange(N * C, dtype=torch.float32).view(N, C), Progress(10, 20))
    first_NC = one.soft_NC.clone()
    label(one, -torch.arange(N * C, dtype=torch.float32).view(N, C), Progress(12, 20))
    kept_NC = first_NC != NONE
    assert torch.equal(one.soft_NC[kept_NC], first_NC[kept_NC])
    assert (one.soft_NC != NONE).sum() == 2 * kept_NC.sum()


def test_known_entries_and_rare_categories_get_no_soft_label():
    labels_NC = random_labels(40)
    labels_NC[:, 2] = ABSENT
    labels_NC[:5, 2] = UNKNOWN  # floor(0.9 * 5 / 5) = 0
    one = method("em_apl", labels_NC)
    label(one, random_logits(40).detach(), Progress(18, 20))
    labelled_NC = one.soft_NC != NONE
    assert labelled_NC.sum() > 0
    assert not labelled_NC[:, 2].any() and not labelled_NC[labels_NC != UNKNOWN].any()


def test_a_score_of_zero_is_a_soft_label_too():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    one = method("em_apl", labels_NC)
    label(one, torch.full((N, C), -200.0), Progress(18, 20))
    assert (one.soft_NC == 0).any()
    losses = losses_of(torch.zeros(N, C), labels_NC, one)
    assert losses["soft_labels"] > 0


def test_a_method_restored_between_two_rounds_goes_on_with_the_next():
    labels_NC = random_labels(40)
    one, other = method("em_apl", labels_NC), method("em_apl", labels_NC)
    label(one, random_logits(40).detach(), Progress(10, 20))
    other.load_state_dict(one.state_dict())
    assert not other.passes(Progress(10, 20))
    for each in (one, other):
        assert label(each, random_logits(40, seed=1).detach(), Progress(12, 20))
    assert torch.equal(one.soft_NC, other.soft_NC)


def test_the_reported_share_is_of_the_unknown_entries():
    labels_NC = torch.full((10, C), UNKNOWN, dtype=torch.int8)
    labels_NC[:, 0] = PRESENT
    one = method("em_apl", labels_NC)
    assert float(one.scalars()["soft_labelled_share"]) == 0
    label(one, torch.zeros(10, C), Progress(10, 20))  # floor(0.9 * 10 / 5) = 1 in three categories
    assert float(one.scalars()["soft_labelled_share"]) == pytest.approx(0.1)
    assert float(one.scalars()["mean_soft_label"]) == pytest.approx(0.5)
