import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.method import Progress
from tests.helpers.loss_samples import (
    LATE,
    C,
    N,
    assert_same,
    batch_of,
    losses_of,
    method,
    random_labels,
    random_logits,
)


def neg_log(p):
    return -p.clamp(min=1e-5).log()


def slow_known(logits_BC, labels_BC):
    total = torch.tensor(0.0)
    for n in range(len(labels_BC)):
        for c in range(C):
            p = torch.sigmoid(logits_BC[n, c].double())
            if labels_BC[n, c] == PRESENT:
                total = total + neg_log(p)
            elif labels_BC[n, c] == ABSENT:
                total = total + neg_log(1 - p)
    return total / labels_BC.numel()


def slow_surplus(logits_BC, expected):
    positives = torch.tensor(0.0)
    for n in range(len(logits_BC)):
        for c in range(C):
            positives = positives + torch.sigmoid(logits_BC[n, c].double())
    return (positives / len(logits_BC) - expected) ** 2 / C**2


def slow_cross(logits_BC, other_BC):
    total = torch.tensor(0.0)
    for n in range(len(logits_BC)):
        for c in range(C):
            p, t = torch.sigmoid(logits_BC[n, c].double()), torch.sigmoid(other_BC[n, c].double()).item()
            total = total + t * neg_log(p) + (1 - t) * neg_log(1 - p)
    return total / logits_BC.numel()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1))
def test_epr_equals_the_loops_with_its_gradient(seed):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    ours = losses_of(logits_BC, labels_BC, method("epr", expected=1.7))
    theirs = {"known": slow_known(logits_BC, labels_BC), "surplus": slow_surplus(logits_BC, 1.7)}
    assert_same(ours, theirs, logits_BC)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1))
def test_role_equals_the_loops_with_the_gradients_of_network_and_table(seed):
    logits_BC, labels_BC = random_logits(6, seed), random_labels(6, seed)
    role = method("role", expected=1.7)
    role.estimates_NC.data = random_logits(seed=seed + 1).detach()
    theta_NC = role.estimates_NC.detach().clone().requires_grad_()
    theta_BC = theta_NC[:6]
    theirs = {
        "known": (slow_known(logits_BC, labels_BC) + slow_known(theta_BC, labels_BC)) / 2,
        "surplus": (slow_surplus(logits_BC, 1.7) + slow_surplus(theta_BC, 1.7)) / 2,
        "network_to_table": slow_cross(logits_BC, theta_BC) / 2,
        "table_to_network": slow_cross(theta_BC, logits_BC) / 2,
    }
    ours = losses_of(logits_BC, labels_BC, role)
    assert_same(ours, theirs, logits_BC)
    (our_grad,) = torch.autograd.grad(sum(losses_of(logits_BC, labels_BC, role).values()), role.estimates_NC)
    table = slow_known(theta_BC, labels_BC) + slow_surplus(theta_BC, 1.7) + slow_cross(theta_BC, logits_BC)
    (their_grad,) = torch.autograd.grad(table / 2, theta_NC)
    torch.testing.assert_close(our_grad, their_grad, rtol=1e-5, atol=1e-5)
    assert not our_grad[6:].any()  # images that are not in the batch


def test_rows_of_the_table_follow_the_images_not_their_place_in_the_batch():
    role, labels_NC = method("role"), random_labels()
    batch = batch_of(labels_NC[[7, 2]])
    batch.index_B[:] = torch.tensor([7, 2])
    role.losses(batch, LATE)["table_to_network"].backward()
    touched_N = role.estimates_NC.grad.abs().sum(1) > 0
    assert touched_N.nonzero().flatten().tolist() == [2, 7]


@pytest.mark.parametrize("name", ["epr", "role"])
def test_the_expected_number_is_known_positives_per_image_over_the_ratio_unless_given(name):
    labels_NC = random_labels()
    positives = sum(labels_NC[n, c].item() == PRESENT for n in range(N) for c in range(C))
    assert method(name, labels_NC, 0.25).scalars()["expected_positives"] == pytest.approx(positives / N / 0.25)
    assert method(name, labels_NC, expected=2.9).scalars()["expected_positives"] == 2.9


def test_known_estimates_start_certain_and_unknown_ones_in_doubt():
    labels_NC = random_labels(rows=2000)
    estimates_NC = torch.sigmoid(method("role", labels_NC).estimates_NC.detach())
    torch.testing.assert_close(estimates_NC[labels_NC == PRESENT].unique(), torch.tensor([0.995]))
    torch.testing.assert_close(estimates_NC[labels_NC == ABSENT].unique(), torch.tensor([0.005]))
    logits_S = torch.logit(estimates_NC[labels_NC == UNKNOWN])
    bound = math.log(0.6 / 0.4)
    assert logits_S.abs().max() <= bound * 1.001 and abs(logits_S.mean()) < 0.02
    assert logits_S.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)  # an even distribution's


def test_the_table_has_its_own_rate_and_no_weight_decay():
    network, table = method("role").parameter_groups()
    assert (table.lr_multiplier, table.weight_decay) == (10, 0)
    assert [value.shape for value in table.parameters] == [(N, C)]
    assert (network.lr_multiplier, network.weight_decay) == (1, None)


def test_the_table_leaves_the_networks_initial_weights_as_they_are_without_it():
    epr, role = method("epr").network.state_dict(), method("role").network.state_dict()
    assert all(torch.equal(value, role[key]) for key, value in epr.items())
    torch.testing.assert_close(epr["head.adjacency_CC"], cooccurrence(random_labels()))


def test_pseudo_labels_are_the_rounded_estimates():
    role = method("role")
    role.estimates_NC.data = torch.randn(N, C)
    pseudo_NC = role.pseudo_labels_NC()
    assert pseudo_NC.dtype == np.int8
    assert ((pseudo_NC == PRESENT) == (role.estimates_NC >= 0).numpy()).all()
    assert set(np.unique(pseudo_NC)) == {PRESENT, ABSENT}


def test_the_reported_positives_are_means_over_the_epoch_so_far():
    role, labels_BC = method("role"), random_labels()
    few_BC, many_BC = torch.full((N, C), -50.0), torch.full((N, C), 50.0)
    for step, (logits_BC, expected) in enumerate([(few_BC, 0), (many_BC, C / 2)]):
        losses_of(logits_BC, labels_BC, role, Progress(0, 20, step, 2))
        assert float(role.scalars()["predicted_positives"]) == pytest.approx(expected)
    estimated = torch.sigmoid(role.estimates_NC.detach()).sum().item() / N
    assert float(role.scalars()["estimated_positives"]) == pytest.approx(estimated, rel=1e-4)
