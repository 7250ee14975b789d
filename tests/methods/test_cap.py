import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.losses import partial_asymmetric
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

CODE = sys.modules[load_methods()["cap"].cls.__module__]


# The numbers of the code published by the authors


@pytest.mark.parametrize("part", ["default/", "half/"])
def test_recorded_pseudo_labels(part):
    inputs, recorded = golden("cap"), golden("cap", part)
    logits_NC, share_C = inputs["logits_NC"], inputs["present_share_C"]
    torch.testing.assert_close(inputs["absent_share_C"], 1 - share_C)
    parts = (float(recorded["present_part"]), float(recorded["absent_part"]))
    ours = CODE.pseudo_labels(logits_NC, torch.ones_like(logits_NC, dtype=torch.bool), share_C, *parts)
    assert torch.equal(ours[:, :4], recorded["pseudo_NC"][:, :4])
    assert (ours[:, :4] == UNKNOWN).any()
    # 0.015 of 50 images are none: there the code's index of -1 makes everything present, which is a defect.
    assert (recorded["hard_NC"][:, 4] == PRESENT).all() and not (ours[:, 4] == PRESENT).any()


def test_recorded_loss_but_for_its_scale_and_gradient():
    recorded = golden("cap", "loss/")
    logits_BC, pseudo_BC = recorded["logits_BC"].requires_grad_(), recorded["pseudo_BC"]
    one = method("cap", torch.full_like(pseudo_BC, UNKNOWN))
    one.labels_NC.copy_(pseudo_BC)
    loss = losses_of(logits_BC, torch.full_like(pseudo_BC, UNKNOWN), one)["pseudo_labels"] * pseudo_BC.numel()
    assert_recorded(loss, recorded["sum64"])
    assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_BC"])


# The losses


def slow_asymmetric(x, present, focus_present=0, focus_absent=4, margin=0.05):
    p = torch.sigmoid(x.double())
    if present:
        return -((1 - p).detach() ** focus_present) * p.log()
    right = torch.clamp(1 - p + margin, max=1)
    return -((1 - right).detach() ** focus_absent) * right.log()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), started=st.booleans())
def test_the_losses_are_those_of_the_loops_with_their_gradients(seed, started):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    one = method("cap", labels_BC)
    filled_BC = torch.randint(-1, 2, (N, C), generator=generator(seed + 1)).to(torch.int8)
    if started:
        one.labels_NC.copy_(torch.where(labels_BC == UNKNOWN, filled_BC, labels_BC))
    theirs = {"known": torch.tensor(0.0)} | ({"pseudo_labels": torch.tensor(0.0)} if started else {})
    for n in range(N):
        for c in range(C):
            term = "known" if labels_BC[n, c] != UNKNOWN else "pseudo_labels"
            label = one.labels_NC[n, c]
            if label != UNKNOWN:
                theirs[term] = theirs[term] + slow_asymmetric(logits_BC[n, c], label == PRESENT) / (N * C)
    ours = losses_of(logits_BC, labels_BC, one, Progress(6 if started else 5, 20))
    assert_same(ours, theirs, logits_BC)


# The pseudo-labels


def label(one, logits_NC, progress):
    """One pass, in batches, if the method wants it before that epoch; whether it did."""
    if not one.passes(progress):
        return False
    for first in range(0, len(logits_NC), 5):
        rows = slice(first, first + 5)
        one.forward = lambda frozen_BDHW, rows=rows: logits_NC[rows]
        batch = batch_of(one.known_NC[rows])
        batch.index_B[:] = torch.arange(len(logits_NC))[rows]
        one.observe(batch)
    one.end_pass(generator())
    return True


def slow_pseudo(logits_NC, labels_NC, present_part=1.0, absent_part=0.998):
    """Category by category, from lists."""
    filled_NC = labels_NC.clone()
    for c in range(labels_NC.shape[1]):
        known = [label for label in labels_NC[:, c].tolist() if label != UNKNOWN]
        rows = [n for n in range(len(labels_NC)) if labels_NC[n, c] == UNKNOWN]
        if not known:
            continue
        share = known.count(PRESENT) / len(known)
        num_present = math.floor(round(present_part * share * len(rows), 6))
        num_absent = math.floor(round(absent_part * (1 - share) * len(rows), 6))
        ranked = sorted(rows, key=lambda n: -logits_NC[n, c].item())
        for n in ranked[:num_present]:
            filled_NC[n, c] = PRESENT
        for n in ranked[len(rows) - num_absent :]:
            filled_NC[n, c] = ABSENT
    return filled_NC


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    present_part=st.sampled_from([0.0, 0.5, 1.0]),
    absent_part=st.sampled_from([0.0, 0.6, 0.998, 1.0]),
)
def test_pseudo_labels_are_those_of_ranking_each_category(seed, present_part, absent_part):
    labels_NC, logits_NC = random_labels(37, seed), random_logits(37, seed + 1).detach()
    labels_NC[:, 1] = UNKNOWN
    one = method("cap", labels_NC, present_part=present_part, absent_part=absent_part)
    assert label(one, logits_NC, Progress(6, 20))
    assert torch.equal(one.labels_NC, slow_pseudo(logits_NC, labels_NC, present_part, absent_part))
    for c in range(C):  # a higher score never gets a lower label
        unknown_N = labels_NC[:, c] == UNKNOWN
        in_order = one.labels_NC[unknown_N, c][logits_NC[unknown_N, c].argsort()]
        assert (in_order.diff() >= 0).all()


def test_numbers_are_exactly_those_that_the_share_asks_for():
    unknown_NC, logits_NC = torch.ones(100, 3, dtype=torch.bool), torch.randn(100, 3, generator=generator())
    share_C = torch.tensor([0.29, 0.0, 1.0], dtype=torch.float64)  # int(0.29 * 100) is 28 in binary
    labels_NC = CODE.pseudo_labels(logits_NC, unknown_NC, share_C, 1.0, 1.0)
    assert (labels_NC == PRESENT).sum(dim=0).tolist() == [29, 0, 100]
    assert (labels_NC == ABSENT).sum(dim=0).tolist() == [71, 100, 0]


def test_of_equal_scores_the_first_rows_become_present():
    unknown_NC = torch.ones(1000, 1, dtype=torch.bool)  # few would be in order after any sort
    labels_NC = CODE.pseudo_labels(torch.zeros(1000, 1), unknown_NC, torch.tensor([0.3], dtype=torch.float64), 1.0, 0.5)
    assert labels_NC[:, 0].tolist() == [PRESENT] * 300 + [UNKNOWN] * 350 + [ABSENT] * 350


def test_a_share_below_one_entry_makes_nothing_present():
    labels_NC = torch.full((60, C), UNKNOWN, dtype=torch.int8)
    labels_NC[:50] = ABSENT
    labels_NC[0] = PRESENT  # 1 in 50, of 10 unknown ones
    one = method("cap", labels_NC)
    label(one, random_logits(60).detach(), Progress(6, 20))
    assert not (one.labels_NC[50:] == PRESENT).any() and (one.labels_NC[50:] == ABSENT).any()


def test_a_category_without_known_labels_and_a_training_set_without_unknown_ones_get_none():
    labels_NC = random_labels()
    labels_NC[:, 2] = UNKNOWN
    one = method("cap", labels_NC)
    label(one, random_logits().detach(), Progress(6, 20))
    assert (one.labels_NC[:, 2] == UNKNOWN).all()
    complete_NC = random_labels(unknown=0)
    one = method("cap", complete_NC)
    label(one, random_logits().detach(), Progress(6, 20))
    assert torch.equal(one.labels_NC, complete_NC)
    assert losses_of(random_logits(), complete_NC, one)["pseudo_labels"] == 0


def test_without_known_negatives_not_everything_becomes_present():
    labels_NC = torch.full((40, C), UNKNOWN, dtype=torch.int8)
    labels_NC[:6, 0] = PRESENT
    share_C = CODE.present_shares(labels_NC, known_ratio=0.5)
    assert share_C.tolist() == [6 / 20, 0, 0, 0]
    one = method("cap", labels_NC, 0.5)
    label(one, random_logits(40).detach(), Progress(6, 20))
    assert (one.labels_NC[6:, 0] == PRESENT).sum() == math.floor(0.3 * 34)


def test_labels_are_made_anew_by_every_pass():
    labels_NC = random_labels(40)
    one, logits_NC = method("cap", labels_NC), random_logits(40).detach()
    for sign in (1, -1):
        label(one, sign * logits_NC, Progress(6, 20))
        assert torch.equal(one.labels_NC, slow_pseudo(sign * logits_NC, labels_NC))


def test_without_parts_it_is_the_asymmetric_loss_of_the_known_labels():
    labels_NC, logits_BC = random_labels(), random_logits()
    one = method("cap", labels_NC, present_part=0.0, absent_part=0.0)
    label(one, random_logits().detach(), Progress(6, 20))
    losses = losses_of(logits_BC, labels_NC, one)
    known_share = (labels_NC != UNKNOWN).float().mean()
    expected = known_share * partial_asymmetric(logits_BC, labels_NC, 0, 4, 0.05)
    torch.testing.assert_close(sum(losses.values()), expected)


def test_a_restored_method_has_the_pseudo_labels_and_reports_their_shares():
    labels_NC = random_labels(40)
    one, other = method("cap", labels_NC), method("cap", labels_NC)
    label(one, random_logits(40).detach(), Progress(6, 20))
    other.load_state_dict(one.state_dict())
    assert (one.pseudo_labels_NC() == other.pseudo_labels_NC()).all()
    unknown_NC = labels_NC == UNKNOWN
    for name, state in {"present": PRESENT, "absent": ABSENT}.items():
        expected = (one.labels_NC[unknown_NC] == state).float().mean().item()
        assert float(other.scalars()[f"filled_{name}_share"]) == pytest.approx(expected)
