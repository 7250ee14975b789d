import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.loss_samples import (
    C,
    batch_of,
    method,
    random_labels,
)
from tests.helpers.prototype_samples import after_a_pass, history_of

CODE = sys.modules[load_methods()["hst"].cls.__module__]
TERMS = {"partial_bce", "cooccurrence", "contrastive"}
TRANSFERRED = {"intra", "intra_score", "inter", "inter_score", "prototype"}
START, LATE = Progress(5, 20, 3, 10), Progress(15, 20, 3, 10)


def trained_on(labels_NC, **options):
    return after_a_pass(method("hst", labels_NC, **{"prototypes": 2, **options}), labels_NC)


def slow_terms(hst, batch, literal=False):
    """Entry by entry, from the pair head's logits, the prototypes and the thresholds."""
    features_BCD, labels_BC = hst.network.features(hst.trained(batch.frozen_BDHW)), batch.labels_BC
    logits_BC, pair_logits_BP = hst.network.head(features_BCD), hst.pairs(features_BCD)
    numbers = {pair: p for p, pair in enumerate((i, j) for i in range(C) for j in range(i + 1, C))}
    excess = {"intra": [], "inter": []}
    pulls = []
    for n in range(len(labels_BC)):
        known = [k for k in range(C) if labels_BC[n, k] == PRESENT]
        for c in range(C):
            together = [
                torch.sigmoid(pair_logits_BP[n, numbers[min(c, k), max(c, k)]]) if c != k else torch.ones(())
                for k in known
            ]
            supported = sum(together, torch.zeros(())) / max(1, len(known))
            centres_KD = hst.prototypes.centres_CKD[c, : hst.prototypes.num_C[c]]
            cosines = [torch.cosine_similarity(features_BCD[n, c], centre_D, dim=0) for centre_D in centres_KD]
            likeness = sum(cosines, torch.zeros(())) / max(1, len(cosines))
            for name, difference in (
                ("intra", supported - hst.intra_threshold),
                ("inter", likeness - hst.inter_threshold),
            ):
                excess[name].append(difference if 0 <= difference <= 1 else torch.tensor(float(difference > 1)))
            y = int(labels_BC[n, c])
            if literal:
                pulls.append(1 + y * likeness)
            elif y != UNKNOWN and len(cosines):
                pulls.append(1 - y * likeness)
    terms = {"prototype": 0.05 * sum(pulls) / len(pulls)}
    for name, values in excess.items():
        excess_BC = torch.stack(values).view(labels_BC.shape)
        filled_BC = torch.where((labels_BC == UNKNOWN) & (excess_BC > 0), PRESENT, labels_BC)
        terms[name] = partial_bce(logits_BC, filled_BC)
        terms[f"{name}_score"] = 0.1 * partial_bce(excess_BC, labels_BC)
    return terms


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), threshold=st.floats(0.1, 0.9), literal=st.booleans())
def test_transferred_terms_equal_the_loops_in_value_and_gradient(seed, threshold, literal):
    labels_NC = random_labels(seed=seed)
    labels_NC[:, 1] = UNKNOWN  # a category without prototypes
    labels_NC[0, 0], labels_NC[1, 0] = PRESENT, ABSENT  # and one with
    hst = trained_on(labels_NC, first_threshold=threshold, literal_prototype_loss=literal)
    batch = batch_of(labels_NC[:6], seed)
    losses = hst.losses(batch, START)
    theirs = slow_terms(hst, batch, literal)
    assert set(losses) == TERMS | TRANSFERRED and set(theirs) == TRANSFERRED
    for name in TRANSFERRED:
        torch.testing.assert_close(losses[name], theirs[name], rtol=1e-5, atol=1e-6)
    inputs = [value for value in hst.parameters() if value.requires_grad]
    direction = {name: 1.0 + number for number, name in enumerate(sorted(TRANSFERRED))}
    gradients = [
        torch.autograd.grad(sum(direction[name] * terms[name] for name in TRANSFERRED), inputs, allow_unused=True)
        for terms in (losses, theirs)
    ]
    for value, our, their in zip(inputs, *gradients, strict=True):
        our, their = (torch.zeros_like(value) if gradient is None else gradient for gradient in (our, their))
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_prototype_loss_by_hand():
    likeness_BC = torch.tensor([[0.5, 0.25, 0.7], [-1.0, 0.0, 0.2]])
    labels_BC = torch.tensor([[PRESENT, ABSENT, PRESENT], [UNKNOWN, PRESENT, ABSENT]])
    exist_C = torch.tensor([True, True, False])
    assert float(CODE.prototype_loss(likeness_BC, labels_BC, exist_C)) == pytest.approx((0.5 + 1.25 + 1) / 3)
    literal = (1.5 + 0.75 + 1.7 + 1 + 1 + 0.8) / 6
    assert float(CODE.prototype_loss(likeness_BC, labels_BC, exist_C, literal=True)) == pytest.approx(literal)


def test_the_prototype_loss_pulls_positives_and_literally_pushes_them():
    likeness_BC, labels_BC = torch.zeros(1, 2, requires_grad=True), torch.tensor([[PRESENT, ABSENT]])
    exist_C = torch.tensor([True, True])
    for literal, sign in ((False, -1), (True, 1)):
        loss = CODE.prototype_loss(likeness_BC, labels_BC, exist_C, literal)
        assert torch.autograd.grad(loss, likeness_BC)[0].tolist() == [[sign * 0.5, -sign * 0.5]]


@pytest.mark.parametrize("state", [UNKNOWN, PRESENT])
def test_the_prototype_loss_without_anything_to_compare_is_zero_and_has_a_gradient(state):
    likeness_BC = torch.zeros(2, 2, requires_grad=True)
    exist_C = torch.tensor([state == UNKNOWN, state == UNKNOWN])
    loss = CODE.prototype_loss(likeness_BC, torch.full((2, 2), state), exist_C)
    loss.backward()
    assert loss.item() == 0 and (likeness_BC.grad == 0).all()


# Thresholds


def test_clamped_values_have_a_gradient_at_both_ends():
    values = torch.tensor([-0.1, 0.0, 0.4, 1.0, 1.1], requires_grad=True)
    ours = CODE.clamped(values)
    torch.testing.assert_close(ours, torch.tensor([0, 0, 0.4, 1, 1]))
    assert torch.autograd.grad(ours.sum(), values)[0].tolist() == [0, 1, 1, 1, 0]


def test_a_threshold_of_one_learns_only_from_images_with_one_known_positive():
    labels_NC = random_labels()
    for known_positives, learns in ((1, True), (2, False), (0, False)):
        labels_BC = torch.full((6, C), ABSENT, dtype=torch.int8)
        labels_BC[:, :known_positives] = PRESENT
        labels_BC[:, -1] = UNKNOWN
        hst = trained_on(labels_NC)
        losses = hst.losses(batch_of(labels_BC), START)
        sum(losses.values()).backward()
        assert (hst.intra_threshold.grad > 0) == learns  # down: with one known positive its own support is 1
        assert hst.inter_threshold.grad == 0  # in the graph, so that weight decay moves it
        assert losses["intra"] == losses["partial_bce"] == losses["inter"]


def test_weight_decay_moves_a_threshold_without_gradient_by_a_learning_rate_a_step():
    labels_NC = random_labels()
    hst = trained_on(labels_NC)
    optimizer = torch.optim.Adam([group.parameters for group in hst.parameter_groups()][1], lr=1e-3, weight_decay=5e-4)
    for step in range(1, 4):
        optimizer.zero_grad()
        sum(hst.losses(batch_of(labels_NC), START).values()).backward()
        optimizer.step()
        assert hst.inter_threshold.item() == pytest.approx(1 - step * 1e-3, abs=1e-5)


def test_thresholds_learn_where_something_exceeds_them():
    labels_NC = random_labels()
    hst = trained_on(labels_NC, first_threshold=0.2)
    sum(hst.losses(batch_of(labels_NC), START).values()).backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in hst.parameters())


def test_thresholds_stay_between_zero_and_one():
    hst = method("hst")
    hst.intra_threshold.data.fill_(1.3)
    hst.inter_threshold.data.fill_(-0.2)
    hst.after_step()
    assert (hst.intra_threshold.item(), hst.inter_threshold.item()) == (1, 0)


def test_thresholds_have_their_own_learning_rate():
    hst = method("hst", threshold_rate=7.0)
    others, thresholds = hst.parameter_groups()
    assert others.lr_multiplier == 1 and thresholds.lr_multiplier == 7
    assert [id(value) for value in thresholds.parameters] == [id(hst.intra_threshold), id(hst.inter_threshold)]
    assert len(others.parameters) + 2 == len(list(hst.parameters()))


def test_what_may_lack_a_gradient_is_a_parameter():
    hst = method("hst")
    assert set(hst.may_lack_gradient) <= set(dict(hst.named_parameters()))


# Schedule and state


def test_labels_are_transferred_from_the_start_on_and_prototypes_recomputed():
    hst = method("hst")
    assert [epoch for epoch in range(20) if hst.passes(Progress(epoch, 20))] == [5, 10, 15]
    for epoch in range(7):
        expected = TERMS | TRANSFERRED if epoch >= 5 else TERMS
        assert set(hst.losses(batch_of(random_labels(4)), Progress(epoch, 20))) == expected


def test_a_short_run_moves_its_thresholds_from_its_second_quarter_on():
    history = history_of("hst", epochs=4)
    assert [row["epoch"] for row in history if {f"loss.{name}" for name in TRANSFERRED} <= set(row)] == [1, 2, 3]
    for name in ("intra", "inter"):
        thresholds = [row[f"scalar.{name}_threshold"] for row in history]
        assert thresholds[0] == 1 > thresholds[1] > thresholds[2] > thresholds[3] > 0.9


def test_reports_the_share_that_exceeds_the_thresholds():
    labels_NC = random_labels()
    hst = trained_on(labels_NC, first_threshold=0.0)
    hst.losses(batch_of(labels_NC), Progress(5, 20, 0, 10))
    features_NCD = hst.network.features(hst.trained(batch_of(labels_NC).frozen_BDHW))
    alike = 0
    for n in range(len(labels_NC)):
        for c in range(C):
            centres_KD = hst.prototypes.centres_CKD[c, : hst.prototypes.num_C[c]]
            likeness = torch.cosine_similarity(features_NCD[n, c], centres_KD, dim=-1).mean()
            alike += int(labels_NC[n, c] == UNKNOWN and likeness > 0)
    unknown_NC = labels_NC == UNKNOWN
    has_positive_N1 = (labels_NC == PRESENT).any(dim=1, keepdim=True)
    scalars = hst.scalars()
    assert float(scalars["inter_filled_share"]) == pytest.approx(alike / int(unknown_NC.sum()))
    supported = int((unknown_NC & has_positive_N1).sum()) / int(unknown_NC.sum())
    assert float(scalars["intra_filled_share"]) == pytest.approx(supported)
    filled_NC = torch.from_numpy(hst.pseudo_labels_NC())
    assert (filled_NC[unknown_NC & has_positive_N1] == PRESENT).all() and (
        filled_NC[~unknown_NC] == labels_NC[~unknown_NC]
    ).all()
    assert 0 < alike < int(unknown_NC.sum()) and 0 < supported < 1


def test_prototypes_are_made_of_the_features_of_known_positives():
    labels_NC = random_labels()
    hst = trained_on(labels_NC, prototypes=1).eval()
    features_NCD = hst.network.features(hst.trained(batch_of(labels_NC).frozen_BDHW)).detach()
    for c in range(C):
        expected_D = features_NCD[labels_NC[:, c] == PRESENT, c].mean(0)
        torch.testing.assert_close(hst.prototypes.centres_CKD[c, 0], expected_D, rtol=1e-4, atol=1e-5)


def test_when_everything_is_known_nothing_is_filled_in():
    labels_NC = random_labels(unknown=0)
    losses = trained_on(labels_NC, first_threshold=0.0).losses(batch_of(labels_NC), LATE)
    assert losses["intra"] == losses["partial_bce"] == losses["inter"]
