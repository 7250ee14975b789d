import math

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
    batch_of,
    losses_of,
    method,
    random_labels,
    random_logits,
)

NAMES = ("ll_r", "ll_ct", "ll_cp")


def bce(logit, present):
    p = torch.sigmoid(logit.double())
    return -p.log() if present else -(1 - p).log()


def slow(name, logits_BC, labels_BC, num_changed):
    """Entry by entry: the unknown entries are ranked by their loss as absent ones, and the first are changed."""
    unknown = [(n, c) for n in range(len(labels_BC)) for c in range(C) if labels_BC[n, c] == UNKNOWN]
    ranked = sorted(unknown, key=lambda entry: -bce(logits_BC[entry], False).item())
    changed = set(ranked[:num_changed])
    terms = {"known": torch.tensor(0.0), "assumed_absent": torch.tensor(0.0)}
    if name != "ll_r":
        terms["corrected"] = torch.tensor(0.0)
    for n in range(len(labels_BC)):
        for c in range(C):
            if labels_BC[n, c] != UNKNOWN:
                terms["known"] = terms["known"] + bce(logits_BC[n, c], labels_BC[n, c] == PRESENT)
            elif (n, c) not in changed:
                terms["assumed_absent"] = terms["assumed_absent"] + bce(logits_BC[n, c], False)
            elif name != "ll_r":
                terms["corrected"] = terms["corrected"] + bce(logits_BC[n, c], True)
    return {key: value / labels_BC.numel() for key, value in terms.items()}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), name=st.sampled_from(NAMES), epoch=st.integers(0, 19))
def test_the_losses_are_those_of_the_loops_with_their_gradients(seed, name, epoch):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    rate = 0.021
    share = 0 if epoch == 0 else rate if name == "ll_cp" else rate * epoch
    theirs = slow(name, logits_BC, labels_BC, math.ceil(share * N * C))
    ours = losses_of(logits_BC, labels_BC, method(name, labels_BC, rate=rate), Progress(epoch, 20))
    assert_same(ours, theirs, logits_BC)


def changed_entries(name, epoch, epochs, entries=500, **overrides):
    """How many entries of an unlabelled batch change."""
    labels_BC = torch.full((entries // C, C), UNKNOWN, dtype=torch.int8)
    one = method(name, labels_BC, **overrides)
    losses_of(random_logits(len(labels_BC)), labels_BC, one, Progress(epoch, epochs))
    return round(float(one.scalars()["changed_share"]) * entries)


def test_the_number_of_changed_entries_grows_by_the_epoch_of_the_papers_20():
    assert [changed_entries("ll_r", epoch, 20) for epoch in (0, 1, 2, 9, 19)] == [0, 1, 2, 9, 19]
    assert [changed_entries("ll_ct", epoch, 10) for epoch in range(4)] == [0, 2, 4, 6]
    assert [changed_entries("ll_r", epoch, 40) for epoch in (0, 1, 2, 3, 4)] == [0, 0, 1, 2, 2]  # 1.5 is rounded up
    assert changed_entries("ll_r", 10, 20, rate=0.005) == 25
    assert changed_entries("ll_r", 2, 20, start=3) == 0


def test_relabelling_keeps_its_number_and_leaves_the_first_epoch_out():
    assert [changed_entries("ll_cp", epoch, 20) for epoch in (0, 1, 2, 19)] == [0, 1, 1, 1]
    assert [changed_entries("ll_cp", epoch, 10) for epoch in (0, 1, 9)] == [0, 1, 1]
    assert [changed_entries("ll_cp", epoch, 40) for epoch in (0, 1, 2)] == [0, 0, 1]
    assert changed_entries("ll_cp", 5, 20, rate=0.01) == 5


@pytest.mark.parametrize("name", NAMES)
def test_if_more_should_change_than_are_unknown_known_labels_stay_as_they_are(name):
    labels_BC = random_labels()
    labels_BC[labels_BC == UNKNOWN] = ABSENT
    labels_BC[0, :2] = UNKNOWN
    logits_BC, one = random_logits(), method(name, labels_BC, rate=1.0)
    ours = losses_of(logits_BC, labels_BC, one, Progress(19, 20))
    assert_same(ours, slow(name, logits_BC, labels_BC, num_changed=2), logits_BC)
    assert round(float(one.scalars()["changed_share"]) * N * C) == 2


def test_equal_losses_are_not_all_changed():
    labels_BC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    one = method("ll_ct", rate=0.01)
    losses_of(torch.zeros(N, C), labels_BC, one, Progress(10, 20))
    assert round(float(one.scalars()["changed_share"]) * N * C) == math.ceil(0.1 * N * C)


def test_relabelled_entries_stay_present_and_new_ones_join_them():
    labels_NC = random_labels()
    one, logits_BC = method("ll_cp", labels_NC, rate=1.5 / (N * C)), random_logits()
    order = sorted(
        ((n, c) for n in range(N) for c in range(C) if labels_NC[n, c] == UNKNOWN),
        key=lambda entry: -logits_BC[entry].item(),
    )
    for step in range(1, 4):
        ours = losses_of(logits_BC, labels_NC, one, Progress(1, 20, step, 4))
        pseudo_NC = torch.from_numpy(one.pseudo_labels_NC())
        present = {tuple(entry) for entry in ((pseudo_NC == PRESENT) & (labels_NC == UNKNOWN)).nonzero().tolist()}
        assert present == set(order[: 2 * step])
        assert_same(ours, slow("ll_cp", logits_BC, labels_NC, num_changed=2 * step), logits_BC)
    known_NC = labels_NC != UNKNOWN
    assert torch.equal(pseudo_NC[known_NC], labels_NC[known_NC])
    # What was relabelled stays so when the network has changed its mind.
    losses = losses_of(-logits_BC, labels_NC, one, Progress(0, 20))
    expected = sum(bce(-logits_BC[entry], True) for entry in order[:6]) / (N * C)
    torch.testing.assert_close(losses["corrected"], expected.float())


def test_relabelling_finds_the_images_by_their_row():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    one, batch = method("ll_cp", labels_NC, rate=0.1), batch_of(labels_NC[:2])
    batch.index_B[:] = torch.tensor([9, 4])
    logits_BC = torch.zeros(2, C)
    logits_BC[0, 3] = 5.0
    one.forward = lambda frozen_BDHW: logits_BC
    one.losses(batch, Progress(5, 20))
    assert (torch.from_numpy(one.pseudo_labels_NC()) == PRESENT).nonzero().tolist() == [[9, 3]]


def test_rejecting_labels_nothing():
    assert method("ll_r").pseudo_labels_NC() is None


def test_a_correction_is_noted_until_the_image_is_seen_again():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    labels_NC[0, 0] = ABSENT
    one = method("ll_ct", labels_NC, rate=1 / (10 * N * C))
    for row, column in [(3, 1), (2, 3)]:
        logits_BC = torch.zeros(N, C)
        logits_BC[row, column], logits_BC[0, 0] = 5.0, 9.0
        losses_of(logits_BC, labels_NC, one, Progress(10, 20))
        pseudo_NC = torch.from_numpy(one.pseudo_labels_NC())
        assert (pseudo_NC == PRESENT).nonzero().tolist() == [[row, column]]
        assert (pseudo_NC == ABSENT).nonzero().tolist() == [[0, 0]]
