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
    assert_same,
    losses_of,
    method,
    random_labels,
    random_logits,
)

CODE = sys.modules[load_methods()["gr"].cls.__module__]


def slow(logits_BC, labels_BC, constants, exponents=(0.01, 1.0)):
    """Entry by entry, in float64; share and weight are plain numbers."""
    slope, offset, centre, width = constants
    terms = {name: torch.tensor(0.0) for name in ("known", "as_present", "as_absent")}
    for n in range(len(labels_BC)):
        for c in range(labels_BC.shape[1]):
            p, q = torch.sigmoid(logits_BC[n, c].double()), torch.sigmoid(-logits_BC[n, c].double())
            if labels_BC[n, c] != UNKNOWN:
                terms["known"] = terms["known"] - ((p if labels_BC[n, c] == PRESENT else q) + 1e-7).log()
                continue
            share = 1 / (1 + math.exp(-(slope * p.item() + offset)))
            weight = math.exp(-((p.item() - centre) ** 2) / (2 * width**2))
            terms["as_present"] = terms["as_present"] + weight * share * (1 - p ** exponents[0]) / exponents[0]
            terms["as_absent"] = terms["as_absent"] + weight * (1 - share) * (1 - q ** exponents[1]) / exponents[1]
    return {name: value / labels_BC.numel() for name, value in terms.items()}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 19), exponents=st.sampled_from([(0.01, 1.0), (0.5, 1.5)]))
def test_the_losses_are_those_of_the_loops_with_their_gradients(seed, epoch, exponents):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    one = method("gr", labels_BC, present_exponent=exponents[0], absent_exponent=exponents[1])
    constants = (2 * epoch / 20, -2, 0.5 + 0.3 * (epoch + 1) / 20, 2 - 1.5 * (epoch + 1) / 20)
    ours = losses_of(logits_BC, labels_BC, one, Progress(epoch, 20))
    assert_same(ours, slow(logits_BC, labels_BC, constants, exponents), logits_BC)


# The numbers of the code published by the authors


def recorded_method(recorded, name):
    """With the constants of a file; its warm-up is in epochs of its run."""
    epochs = int(recorded["epochs"])
    return method(
        "gr",
        recorded["labels_BC"],
        growth={"gr": "code", "gr_other": "coco"}[name],
        present_exponent=float(recorded["q2"]),
        absent_exponent=float(recorded["q3"]),
        warm_up=int(recorded["linear_init"]) * 20 // epochs,
    ), epochs


@pytest.mark.parametrize("name", ["gr", "gr_other"])
def test_recorded_constants_shares_weights_losses_and_gradients_by_epoch(name):
    recorded = golden(name)
    one, epochs = recorded_method(recorded, name)
    scores_BC = recorded["logits_BC"].sigmoid()
    for epoch in range(epochs):
        slope, offset, centre, width = one.constants(Progress(epoch, epochs))
        for ours, theirs in {"w_E": slope, "b_E": offset, "mu_E": centre, "sigma_E": width}.items():
            assert theirs == pytest.approx(recorded[ours][epoch].item(), rel=1e-9, abs=1e-12)
        assert_recorded(CODE.present_share(scores_BC, slope, offset), recorded["K_EBC"][epoch])
        assert_recorded(CODE.bell(scores_BC, centre, width), recorded["V_EBC"][epoch])
        logits_BC = recorded["logits_BC"].clone().requires_grad_()
        loss = sum(losses_of(logits_BC, recorded["labels_BC"], one, Progress(epoch, epochs)).values())
        assert_recorded(loss, recorded["loss64_E"][epoch])
        assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_EBC"][epoch])


@pytest.mark.parametrize("name", ["gr", "gr_other"])
def test_recorded_loss_and_gradient_of_saturated_logits(name):
    one, epochs = recorded_method(golden(name), name)
    recorded = golden(name, "saturated/")
    logits_BC = recorded["logits_BC"].requires_grad_()
    loss = sum(losses_of(logits_BC, recorded["labels_BC"], one, Progress(epochs - 1, epochs)).values())
    assert_recorded(loss, recorded["loss64"])
    assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_BC"])


# What follows from the equations


@pytest.mark.parametrize("exponent", [0.01, 1.0, 1.5])
@pytest.mark.parametrize("logit", [-100.0, -5.0, 0.0, 5.0, 100.0])
def test_the_gradient_of_the_robust_loss_is_that_on_paper_even_where_the_score_is_0(logit, exponent):
    x = torch.tensor(logit, requires_grad=True)
    p, q = torch.sigmoid(x.detach().double()).item(), torch.sigmoid(-x.detach().double()).item()
    assert torch.autograd.grad(CODE.robust_loss(x, exponent), x)[0].item() == pytest.approx(
        -(p**exponent) * q, rel=1e-4
    )
    of_negative = torch.autograd.grad(CODE.robust_loss(-x, exponent), x)[0].item()
    assert of_negative == pytest.approx(q**exponent * p, rel=1e-4)


def test_between_a_share_of_0_and_a_weight_of_1_an_unknown_entry_costs_its_score():
    logits_BC = random_logits()
    torch.testing.assert_close(CODE.robust_loss(-logits_BC, 1.0), logits_BC.sigmoid())
    scores_BC = logits_BC.sigmoid()
    torch.testing.assert_close(CODE.bell(scores_BC, 0.5, 1e6), torch.ones_like(scores_BC))
    assert CODE.present_share(scores_BC, 0.0, -200.0).max() == 0


def test_with_a_small_exponent_the_robust_loss_is_cross_entropy():
    logits_BC = random_logits()
    torch.testing.assert_close(
        CODE.robust_loss(logits_BC, 1e-6), torch.nn.functional.softplus(-logits_BC), rtol=1e-4, atol=1e-5
    )


def test_complete_labels_cost_cross_entropy_and_nothing_else():
    logits_BC, labels_BC = random_logits(), random_labels(unknown=0)
    losses = losses_of(logits_BC, labels_BC, method("gr", labels_BC))
    signs_BC = torch.where(labels_BC == PRESENT, 1, -1)
    torch.testing.assert_close(losses["known"], -(signs_BC * logits_BC).sigmoid().log().mean(), rtol=1e-5, atol=1e-5)
    assert losses["as_present"] == losses["as_absent"] == 0


def test_share_and_weight_have_no_gradient():
    logits_BC, labels_BC = random_logits(), torch.full((12, C), UNKNOWN, dtype=torch.int8)
    one = method("gr", labels_BC)
    loss = losses_of(logits_BC, labels_BC, one, Progress(10, 20))["as_absent"]
    slope, offset, centre, width = one.constants(Progress(10, 20))
    p_BC = logits_BC.detach().sigmoid()
    factor_BC = CODE.bell(p_BC, centre, width) * (1 - CODE.present_share(p_BC, slope, offset))
    (gradient_BC,) = torch.autograd.grad(loss, logits_BC)
    torch.testing.assert_close(gradient_BC, factor_BC * p_BC * (1 - p_BC) / logits_BC.numel(), rtol=1e-4, atol=1e-6)


# The schedule


@pytest.mark.parametrize("epochs", [4, 8, 20])
def test_the_share_starts_and_the_bell_ends_with_the_constants_of_the_code(epochs):
    one = method("gr")
    slope, offset, centre, _ = one.constants(Progress(0, epochs))
    assert (slope, offset) == (0, -2)
    assert centre > 0.5
    slope, offset, centre, width = one.constants(Progress(epochs - 1, epochs))
    assert slope == pytest.approx(2 * (epochs - 1) / epochs) and (centre, width) == pytest.approx((0.8, 0.5))
    assert CODE.present_share(torch.rand(3), 0, -2).tolist() == pytest.approx([0.1192] * 3, abs=1e-4)


def test_the_reported_numbers_are_of_the_unknown_entries():
    labels_BC = random_labels()
    labels_BC[0, :2] = torch.tensor([PRESENT, ABSENT])
    one = method("gr", labels_BC)
    unknown_BC, logits_BC = labels_BC == UNKNOWN, random_logits()
    losses_of(logits_BC, labels_BC, one, Progress(5, 20))
    slope, offset, centre, width = one.constants(Progress(5, 20))
    scores = logits_BC.detach().sigmoid()[unknown_BC]
    reported = {name: float(value) for name, value in one.scalars().items()}
    assert reported == pytest.approx(
        {
            "slope": slope,
            "offset": offset,
            "centre": centre,
            "bell_width": width,
            "present_share": CODE.present_share(scores, slope, offset).mean().item(),
            "weight": CODE.bell(scores, centre, width).mean().item(),
        },
        rel=1e-5,
    )


def test_the_head_can_learn_faster():
    one = method("gr", head_rate=10.0)
    body, head = one.parameter_groups()
    assert (body.lr_multiplier, head.lr_multiplier) == (1, 10)
    assert {id(p) for p in head.parameters} == {id(p) for p in one.network.parameters()}
