import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.heads import PooledClassifier
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.registry import load_methods
from tests.helpers.loss_samples import (
    LATE,
    C,
    N,
    batch_of,
    generator,
    method,
    random_labels,
)

CODE = sys.modules[load_methods()["sr"].cls.__module__]
NAMES = ("sr", "sr_st")


# The score


def test_the_worked_example():
    maps_BCHW = torch.tensor([[[[3.0, -1.0], [0.0, 2.0]]]], requires_grad=True)
    logits_BC = CODE.salient_logits(maps_BCHW, saliency=0.5, positions=2)
    assert logits_BC.item() == 2.25
    assert logits_BC.sigmoid().item() == pytest.approx(0.90465, abs=1e-5)
    logits_BC.sum().backward()
    assert maps_BCHW.grad[0, 0].tolist() == [[0.5, 0.25], [0.25, 0.5]]


def slow_logits(maps_BCHW, saliency, positions):
    rows = []
    for maps_CHW in maps_BCHW.double():
        row = []
        for map_HW in maps_CHW:
            values = sorted(map_HW.flatten(), key=lambda value: value.item(), reverse=True)
            highest = values[:positions]
            row.append(sum(values) / len(values) + saliency * sum(highest) / len(highest))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), positions=st.integers(1, 12), saliency=st.floats(0, 2))
def test_logits_and_gradients_are_those_of_sorting_each_map(seed, positions, saliency):
    maps_BCHW = torch.randn(2, 3, 3, 4, generator=generator(seed)).requires_grad_()
    ours, theirs = (f(maps_BCHW, saliency, positions) for f in (CODE.salient_logits, slow_logits))
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(x_BC.square().sum(), maps_BCHW)[0] for x_BC in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_with_as_many_positions_as_there_are_or_more_all_count_alike():
    maps_BCHW = torch.randn(2, C, 3, 4, generator=generator())
    for positions in (12, 13, 500):
        logits_BC = CODE.salient_logits(maps_BCHW, 0.5, positions)
        torch.testing.assert_close(logits_BC, 1.5 * maps_BCHW.mean(dim=(2, 3)))


def test_without_saliency_it_is_a_linear_classifier_of_the_mean_position():
    one, frozen_BDHW = method("sr", saliency=0.0), batch_of(random_labels(3)).frozen_BDHW
    classifier = PooledClassifier(6, C)
    classifier.weight.data, classifier.bias.data = one.class_maps.weight.data.flatten(1), one.class_maps.bias.data
    torch.testing.assert_close(one(frozen_BDHW), classifier(one.trained(frozen_BDHW)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_score_at_test_time_is_the_trained_one(name):
    one, frozen_BDHW = method(name), batch_of(random_labels(3)).frozen_BDHW
    expected_BC = CODE.salient_logits(one.class_maps(one.trained(frozen_BDHW)), 0.5, 5)
    torch.testing.assert_close(one.eval()(frozen_BDHW), expected_BC)


# The pseudo-labels and their loss


def test_a_state_is_labelled_from_the_threshold_on_and_known_entries_never():
    bound = math.log(0.6 / 0.4)
    assert bound == pytest.approx(0.405465, abs=1e-6)
    logits_BC = torch.tensor([[bound, bound - 1e-3, 1 - bound, -bound, 1e-3 - bound, 9.0, -9.0]])
    labels_BC = torch.tensor([[UNKNOWN] * 5 + [PRESENT, PRESENT]], dtype=torch.int8)
    expected = [PRESENT, UNKNOWN, PRESENT, ABSENT, UNKNOWN, UNKNOWN, UNKNOWN]
    pseudo_BC = CODE.pseudo_labels(logits_BC.requires_grad_(), labels_BC, 0.6)
    assert pseudo_BC.tolist() == [expected]
    assert pseudo_BC.dtype == torch.int8 and not pseudo_BC.requires_grad


def with_views(one, weak_BC, strong_BC):
    """A method whose network gives these logits for the first and the second half of its batch."""
    one.forward = lambda frozen_BDHW: torch.cat([weak_BC, strong_BC])
    return one


def slow_bce(logits_BC, labels_BC):
    """The mean over the known entries, one after the other."""
    entries = [
        -torch.sigmoid((1 if labels_BC[n, c] == PRESENT else -1) * logits_BC[n, c].double()).log()
        for n in range(len(labels_BC))
        for c in range(C)
        if labels_BC[n, c] != UNKNOWN
    ]
    return sum(entries) / max(len(entries), 1) + 0 * logits_BC.sum()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), supervised=st.sampled_from(["both", "weak"]))
def test_the_losses_are_those_of_the_loops_with_the_gradients_of_both_views(seed, supervised):
    labels_BC = random_labels(seed=seed)
    weak_BC, strong_BC = (
        (2 * torch.randn(N, C, generator=generator(seed + number))).requires_grad_() for number in (1, 2)
    )
    ours = with_views(method("sr_st", labels_BC, supervised=supervised), weak_BC, strong_BC).losses(
        batch_of(labels_BC), LATE
    )
    pseudo_BC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    for n in range(N):
        for c in range(C):
            p = weak_BC[n, c].sigmoid().item()
            if labels_BC[n, c] == UNKNOWN and max(p, 1 - p) >= 0.6:
                pseudo_BC[n, c] = PRESENT if p >= 0.6 else ABSENT
    if supervised == "both":
        known = slow_bce(torch.cat([weak_BC, strong_BC]), torch.cat([labels_BC, labels_BC]))
    else:
        known = slow_bce(weak_BC, labels_BC)
    theirs = {"partial_bce": known, "pseudo_labels": slow_bce(strong_BC, pseudo_BC)}
    assert set(ours) == set(theirs)
    for name, loss in ours.items():
        torch.testing.assert_close(loss, theirs[name].float(), rtol=1e-5, atol=1e-5)
        pairs = zip(
            *(
                torch.autograd.grad(x, (weak_BC, strong_BC), retain_graph=True, allow_unused=True)
                for x in (loss, theirs[name])
            ),
            strict=True,
        )
        for our, their in pairs:
            zero = torch.zeros(N, C)
            torch.testing.assert_close(zero if our is None else our, zero if their is None else their)
    (of_weak_BC,) = torch.autograd.grad(ours["pseudo_labels"], weak_BC, allow_unused=True)
    assert of_weak_BC is None or not of_weak_BC.any()


def test_two_equal_views_push_what_is_already_sure():
    labels_BC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    logits_BC = torch.randn(N, C, generator=generator()).requires_grad_()
    one = with_views(method("sr_st", labels_BC, supervised="weak"), logits_BC, logits_BC)
    loss = one.losses(batch_of(labels_BC), LATE)["pseudo_labels"]
    (gradient_BC,) = torch.autograd.grad(loss, logits_BC)
    sure_BC = logits_BC.detach().abs() >= math.log(1.5)
    assert torch.equal(-gradient_BC.sign(), logits_BC.detach().sign() * sure_BC) and 0 < sure_BC.sum() < N * C


def test_with_complete_labels_there_is_no_pseudo_label_but_a_gradient_of_0():
    labels_BC = random_labels(unknown=0)
    one = method("sr_st", labels_BC)
    losses = one.losses(batch_of(labels_BC), LATE)
    assert losses["pseudo_labels"] == 0
    losses["pseudo_labels"].backward()
    assert not one.class_maps.weight.grad.any()
    assert float(one.scalars()["pseudo_present_share"]) == float(one.scalars()["pseudo_absent_share"]) == 0


def test_pseudo_labels_and_their_shares_are_reported_by_row():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    labels_NC[9, 0] = ABSENT
    batch = batch_of(labels_NC[[9, 4]])
    batch.index_B[:] = torch.tensor([9, 4])
    weak_BC = torch.tensor([[3.0, 3.0, 0.0, -3.0], [0.0, 0.0, 3.0, 0.0]])
    one = with_views(method("sr_st", labels_NC), weak_BC, weak_BC)
    one.losses(batch, LATE)
    pseudo_NC = torch.from_numpy(one.pseudo_labels_NC())
    assert (pseudo_NC == PRESENT).nonzero().tolist() == [[4, 2], [9, 1]]
    assert (pseudo_NC == ABSENT).nonzero().tolist() == [[9, 0], [9, 3]]
    # LATE is the fourth step of its epoch.
    assert float(one.scalars()["pseudo_present_share"]) == pytest.approx(2 / 8 / 4)


def test_both_views_are_normalised_together_by_the_trained_part():
    one, batch = method("sr_st"), batch_of(random_labels(3))
    seen = []
    one.trained.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses = one.losses(batch, LATE)
    (both_BDHW,) = seen
    assert torch.equal(both_BDHW, torch.cat([batch.frozen_BDHW, batch.strong_BDHW]))
    expected = partial_bce(one(both_BDHW), batch.labels_BC.repeat(2, 1))
    torch.testing.assert_close(losses["partial_bce"], expected)


# The strong view


def test_the_strong_view_is_torchvisions_rand_augment_unless_told_otherwise():
    assert method("sr_st").strong_view() == StrongView(operations=2, magnitude=9)
    assert method("sr_st", operations=3, magnitude=5).strong_view() == StrongView(operations=3, magnitude=5)
    assert method("sr").strong_view() is None
