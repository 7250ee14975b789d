import math

import pytest
import torch

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from tests.helpers.loss_samples import LATE, batch_of, method, random_labels


def slow(logits_BC, labels_BC, focus_present, focus_absent, margin):
    """Entry by entry, as the paper reads."""
    losses = []
    for x, label in zip(logits_BC.flatten().tolist(), labels_BC.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        q = max(p - margin, 0)
        if label != UNKNOWN:
            present = -((1 - p) ** focus_present) * math.log(p)
            losses.append(present if label == PRESENT else -(q**focus_absent) * math.log(1 - q))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("weights", [(0.0, 4.0, 0.05), (1.0, 2.0, 0.0)])
def test_the_loss_is_the_asymmetric_one_of_the_known_labels(weights):
    one = method("ssgrl_asl", **dict(zip(("focus_present", "focus_absent", "margin"), map(str, weights), strict=True)))
    batch = batch_of(random_labels(5))
    (loss,) = one.losses(batch, LATE).values()
    assert loss.item() == pytest.approx(slow(one(batch.frozen_BDHW), batch.labels_BC, *weights), rel=1e-4)


def test_it_is_ssgrl_with_another_loss():
    one, ssgrl, batch = method("ssgrl_asl"), method("ssgrl"), batch_of(random_labels(5))
    ours, theirs = one.state_dict(), ssgrl.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(one(batch.frozen_BDHW), ssgrl(batch.frozen_BDHW))


def test_without_weights_it_is_partial_cross_entropy():
    one, ssgrl, batch = method("ssgrl_asl", focus_absent="0", margin="0"), method("ssgrl"), batch_of(random_labels(5))
    (ours,), (theirs,) = (each.losses(batch, LATE).values() for each in (one, ssgrl))
    torch.testing.assert_close(ours, theirs)
