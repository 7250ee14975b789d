import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.losses import (
    asymmetric,
    clipped_log_sigmoid,
    contrastive,
    largest,
    normalised_bce,
    part_of_mean,
    partial_asymmetric,
    partial_bce,
)
from tests.helpers.golden import assert_recorded, golden


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_partial_bce(logits_BC, targets_BC, margin=0.0):
    """Entry by entry, as the definition reads."""
    losses = []
    for x, t in zip(logits_BC.flatten(), targets_BC.flatten(), strict=True):
        present, absent = torch.sigmoid(x).log(), torch.sigmoid(-x).log()
        if t > margin:
            losses.append(-(t * present + (1 - t) * absent))
        elif t < -margin:
            losses.append(-(-t * absent + (1 + t) * present))
    return sum(losses) / len(losses) if losses else logits_BC.sum() * 0


@settings(deadline=None)  # the first call pays for start-up
@given(seed=st.integers(0, 2**31 - 1), margin=st.sampled_from([0.0, 0.5]))
def test_partial_bce_equals_the_definition_in_value_and_both_gradients(seed, margin):
    random = np.random.default_rng(seed)
    targets = random.uniform(-1, 1, (3, 4)) * (random.random((3, 4)) < 0.7)
    logits_BC = torch.tensor(random.normal(size=(3, 4)), dtype=torch.float32, requires_grad=True)
    targets_BC = torch.tensor(targets, dtype=torch.float32, requires_grad=True)
    ours, theirs = partial_bce(logits_BC, targets_BC, margin), slow_partial_bce(logits_BC, targets_BC, margin)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    our_gradients = torch.autograd.grad(ours, [logits_BC, targets_BC])
    their_gradients = torch.autograd.grad(theirs, [logits_BC, targets_BC], allow_unused=True)
    for our, their in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(our, torch.zeros_like(our) if their is None else their, rtol=1e-4, atol=1e-6)


def test_partial_bce_of_plain_labels_by_hand():
    labels_BC = torch.tensor([[PRESENT, UNKNOWN], [ABSENT, UNKNOWN]], dtype=torch.int8)
    loss = partial_bce(torch.tensor([[2.0, 50.0], [3.0, -50.0]]), labels_BC)
    assert math.isclose(loss, (math.log1p(math.exp(-2)) + math.log1p(math.exp(3))) / 2, rel_tol=1e-6)


def test_partial_bce_of_one_known_label_is_that_labels_loss():
    labels_BC = torch.tensor([[UNKNOWN, PRESENT], [UNKNOWN, UNKNOWN]], dtype=torch.int8)
    loss = partial_bce(torch.tensor([[9.0, 2.0], [9.0, 9.0]]), labels_BC)
    assert math.isclose(loss, math.log1p(math.exp(-2)), rel_tol=1e-6)


def test_partial_bce_averages_over_the_batch_not_per_image():
    labels_BC = torch.tensor([[PRESENT, PRESENT, PRESENT], [UNKNOWN, UNKNOWN, ABSENT]])
    loss = partial_bce(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 5.0]]), labels_BC)
    assert math.isclose(loss, (3 * math.log(2) + math.log1p(math.exp(5))) / 4, rel_tol=1e-6)


def test_partial_bce_of_a_batch_without_known_labels_is_zero_and_has_a_gradient():
    logits_BC = torch.randn(2, 3, requires_grad=True)
    loss = partial_bce(logits_BC, torch.full((2, 3), UNKNOWN, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0 and (logits_BC.grad == 0).all()


def test_partial_bce_is_computed_in_float32_under_autocast():
    logits_BC, labels_BC = torch.randn(4, 5), torch.randint(-1, 2, (4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        loss = partial_bce(logits_BC.bfloat16(), labels_BC)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, partial_bce(logits_BC.bfloat16().float(), labels_BC))


def slow_normalised_bce(logits_BC, labels_BC, slope, exponent, offset):
    """Image by image, as the definition reads."""
    num_images, num_categories = labels_BC.shape
    total = logits_BC.sum() * 0
    for n in range(num_images):
        known = [c for c in range(num_categories) if labels_BC[n, c] != UNKNOWN]
        for c in known:
            probability = torch.sigmoid(logits_BC[n, c])
            loss = -probability.log() if labels_BC[n, c] == PRESENT else -(1 - probability).log()
            weight = slope * (len(known) / num_categories) ** exponent + offset
            total = total + weight / num_categories * loss
    return total / num_images


@given(
    seed=st.integers(0, 2**31 - 1), constants=st.sampled_from([(-4.45, 1.0, 5.45), (1.0, -1.0, 0.0), (0.5, 2.0, 1.0)])
)
def test_normalised_bce_equals_the_definition_in_value_and_gradient(seed, constants):
    random = np.random.default_rng(seed)
    labels = random.choice([PRESENT, UNKNOWN, ABSENT], (5, 4), p=[0.3, 0.4, 0.3])
    labels[0] = UNKNOWN
    logits_BC = torch.tensor(random.normal(size=(5, 4)), dtype=torch.float32, requires_grad=True)
    labels_BC = torch.tensor(labels, dtype=torch.int8)
    ours, theirs = (
        normalised_bce(logits_BC, labels_BC, *constants),
        slow_normalised_bce(logits_BC, labels_BC, *constants),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = (torch.autograd.grad(loss, logits_BC)[0] for loss in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_normalised_bce_weighs_full_knowledge_by_1_and_a_tenth_by_5():
    """Every loss is log 2: an image with share p known counts g(p) p log 2."""
    labels_BC = torch.full((1, 10), ABSENT, dtype=torch.int8)
    assert math.isclose(normalised_bce(torch.zeros(1, 10), labels_BC), math.log(2), rel_tol=1e-5)
    labels_BC[0, 1:] = UNKNOWN
    assert math.isclose(normalised_bce(torch.zeros(1, 10), labels_BC), 0.5005 * math.log(2), rel_tol=1e-5)


@pytest.mark.parametrize("exponent", [1.0, -1.0])
def test_normalised_bce_of_a_batch_without_known_labels_is_zero_and_has_a_gradient(exponent):
    logits_BC = torch.randn(2, 3, requires_grad=True)
    loss = normalised_bce(logits_BC, torch.full((2, 3), UNKNOWN, dtype=torch.int8), exponent=exponent)
    loss.backward()
    assert loss.item() == 0 and (logits_BC.grad == 0).all()


def test_normalised_bce_is_computed_in_float32_under_autocast():
    logits_BC, labels_BC = torch.randn(4, 5), torch.randint(-1, 2, (4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        loss = normalised_bce(logits_BC.bfloat16(), labels_BC)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, normalised_bce(logits_BC.bfloat16().float(), labels_BC))


def slow_pairs(features_BCD, labels_BC):
    """Losses of all known pairs by kind, category by category and pair by pair."""
    both, mixed, none = [], [], []
    for c in range(labels_BC.shape[1]):
        for i in range(len(labels_BC)):
            for j in range(i + 1, len(labels_BC)):
                if UNKNOWN in (labels_BC[i, c], labels_BC[j, c]):
                    continue
                s = torch.cosine_similarity(features_BCD[i, c], features_BCD[j, c], dim=0, eps=1e-9)
                present = (labels_BC[i, c] == PRESENT).item() + (labels_BC[j, c] == PRESENT).item()
                [none, mixed, both][present].append(1 - s if present == 2 else 1 + s)
    return both, mixed, none


def average(losses):
    return sum(losses) / len(losses) if losses else torch.tensor(0.0)


def random_pairs(seed, present=0.3, images=5, categories=3):
    random = np.random.default_rng(seed)
    labels = random.choice([PRESENT, UNKNOWN, ABSENT], (images, categories), p=[present, 0.2, 0.8 - present])
    features = random.normal(size=(images, categories, 4))
    return torch.tensor(features, dtype=torch.float32, requires_grad=True), torch.tensor(labels, dtype=torch.int8)


@settings(deadline=None)  # the first call pays for start-up
@given(seed=st.integers(0, 2**31 - 1), images=st.integers(1, 5), absent_pairs=st.booleans())
def test_contrastive_over_all_pairs_equals_the_loops_in_value_and_gradient(seed, images, absent_pairs):
    features_BCD, labels_BC = random_pairs(seed, images=images)
    both, mixed, none = slow_pairs(features_BCD, labels_BC)
    ours = contrastive(features_BCD, labels_BC, generator(), absent_pairs, subsample=False)
    theirs = average(both + mixed + (none if absent_pairs else []))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    if theirs.requires_grad:
        gradients = (torch.autograd.grad(loss, features_BCD)[0] for loss in (ours, theirs))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@settings(deadline=None)  # the first call pays for start-up
@given(seed=st.integers(0, 2**31 - 1))
def test_without_a_positive_pair_all_other_pairs_count(seed):
    features_BCD, labels_BC = random_pairs(seed)
    labels_BC[labels_BC == PRESENT] = UNKNOWN
    labels_BC[0, 0] = PRESENT
    _, mixed, none = slow_pairs(features_BCD, labels_BC)
    ours = contrastive(features_BCD, labels_BC, generator())
    torch.testing.assert_close(ours, average(mixed + none), rtol=1e-5, atol=1e-6)


def test_the_selection_is_2m_at_random_and_the_m_with_the_largest_loss():
    """m = 1 and long lists of other pairs: the only freedom is which two of each are drawn."""
    features_BCD, labels_BC = random_pairs(0, images=8, categories=2)
    features_BCD = features_BCD.detach()
    labels_BC[:] = ABSENT
    labels_BC[0, 0] = labels_BC[1, 0] = PRESENT
    both, mixed, none = slow_pairs(features_BCD, labels_BC)
    assert (len(both), len(mixed), len(none)) == (1, 12, 15 + 28)
    fixed = both[0] + max(mixed) + max(none)

    def possible(losses):
        return {round(float(a + b), 5) for k, a in enumerate(losses) for b in losses[k + 1 :]}

    sums = {round(float(a) + float(b) + float(fixed), 4) for a in possible(mixed) for b in possible(none)}
    drawn = [7 * float(contrastive(features_BCD, labels_BC, generator(seed))) for seed in range(20)]
    assert all(min(abs(value - other) for other in sums) < 2e-4 for value in drawn)
    assert len({round(value, 4) for value in drawn}) > 10


def test_the_random_part_of_the_selection_is_even():
    """On average over draws the random half is the plain mean of its set."""
    features_BCD, labels_BC = random_pairs(0, images=8, categories=2)
    labels_BC[:] = ABSENT
    labels_BC[0, 0] = labels_BC[1, 0] = PRESENT
    both, mixed, _ = slow_pairs(features_BCD.detach(), labels_BC)
    expected = (both[0] + max(mixed) + 2 * average(mixed)) / 4
    values = [contrastive(features_BCD.detach(), labels_BC, generator(seed), absent_pairs=False) for seed in range(800)]
    assert abs(average(values) - expected) < 0.02


def test_smaller_sets_are_taken_whole_and_the_hardest_count_twice():
    features_BCD, labels_BC = random_pairs(3, images=4, categories=1)
    labels_BC[:, 0] = torch.tensor([PRESENT, PRESENT, PRESENT, ABSENT])
    both, mixed, _ = slow_pairs(features_BCD, labels_BC)  # m = 3: all three mixed pairs, and again as the hardest
    torch.testing.assert_close(contrastive(features_BCD, labels_BC, generator()), average(both + mixed + mixed))


def test_the_selection_counts_pairs_over_all_categories():
    features_BCD, labels_BC = random_pairs(4, images=3, categories=2)
    features_BCD = features_BCD.detach()
    labels_BC[:] = torch.tensor([[PRESENT, ABSENT], [PRESENT, ABSENT], [UNKNOWN, ABSENT]])
    both, _, none = slow_pairs(features_BCD, labels_BC)  # m = 1 comes from category 0, the others from category 1
    assert (len(both), len(none)) == (1, 3)
    losses = [float(contrastive(features_BCD, labels_BC, generator(seed))) for seed in range(20)]
    possible = [float(both[0] + sum(none) - none[k] + max(none)) / 4 for k in range(3)]
    assert all(min(abs(loss - other) for other in possible) < 1e-5 for loss in losses)


@pytest.mark.parametrize("state", [UNKNOWN, PRESENT])
@pytest.mark.parametrize("subsample", [True, False])
def test_contrastive_without_pairs_is_zero_and_has_a_gradient(state, subsample):
    features_BCD = torch.randn(3, 2, 4, requires_grad=True)
    labels_BC = torch.full((3, 2), UNKNOWN, dtype=torch.int8)
    labels_BC[0] = state  # one known label per category makes no pair
    loss = contrastive(features_BCD, labels_BC, generator(), subsample=subsample)
    loss.backward()
    assert loss.item() == 0 and (features_BCD.grad == 0).all()


def test_contrastive_is_computed_in_float32_under_autocast():
    features_BCD, labels_BC = random_pairs(0)
    large_BCD = features_BCD.detach() * 1e4  # squares overflow float16
    expected = contrastive(large_BCD, labels_BC, generator())
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive(large_BCD, labels_BC, generator())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_the_clipped_log_sigmoid_is_the_logarithm_down_to_its_floor_and_flat_below():
    logits_BC = torch.tensor([[-200.0, -11.6, -11.4, -1.0, 0.0, 3.0, 200.0]], requires_grad=True)
    ours_BC = clipped_log_sigmoid(logits_BC)
    theirs_BC = torch.sigmoid(logits_BC.detach().double()).clamp(min=1e-5).log().float()
    torch.testing.assert_close(ours_BC, theirs_BC)
    (gradient_BC,) = torch.autograd.grad(ours_BC.sum(), logits_BC)
    inside_BC = torch.sigmoid(-logits_BC.detach()) * (logits_BC > -11.5)
    torch.testing.assert_close(gradient_BC, inside_BC)
    assert clipped_log_sigmoid(torch.zeros(1, 1, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_part_of_the_mean_ignores_what_is_not_marked_even_if_infinite():
    losses_BC = torch.tensor([[1.0, float("inf")], [3.0, 4.0]], requires_grad=True)
    part = part_of_mean(losses_BC, torch.tensor([[True, False], [False, True]]))
    part.backward()
    assert part.item() == 5 / 4 and losses_BC.grad.tolist() == [[0.25, 0], [0, 0.25]]
    assert part_of_mean(losses_BC, torch.zeros(2, 2, dtype=torch.bool)) == 0


@settings(deadline=None)  # the first call pays for start-up
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 15))
def test_the_largest_are_found_among_the_members_of_the_whole_batch(seed, count):
    keys_BC = torch.randn(3, 4, generator=generator(seed))
    members_BC = torch.rand(3, 4, generator=generator(seed)) < 0.6
    ranked = sorted(members_BC.nonzero().tolist(), key=lambda entry: -keys_BC[tuple(entry)].item())
    assert largest(keys_BC, members_BC, count).nonzero().tolist() == sorted(ranked[:count])


def test_exactly_the_count_is_taken_of_equal_keys():
    assert largest(torch.zeros(3, 4), torch.ones(3, 4, dtype=torch.bool), 5).sum() == 5


def slow_asymmetric(logits, present, focus_present, focus_absent, margin):
    """Entry by entry; a probability within the margin of 0 costs nothing."""
    losses = []
    for logit, is_present in zip(logits.double(), present, strict=True):
        p = torch.sigmoid(logit)
        if is_present:
            losses.append(-((1 - p) ** focus_present) * p.log())
        else:
            q = p - margin if p > margin else 0 * p
            losses.append(-(q**focus_absent) * (1 - q).log())
    return torch.stack(losses)


@given(
    seed=st.integers(0, 2**31 - 1),
    focus_present=st.sampled_from([1.0, 2.0]),
    focus_absent=st.sampled_from([2.0, 4.0]),
    margin=st.sampled_from([0.0, 0.05]),
)
def test_the_asymmetric_loss_equals_the_definition_in_value_and_gradient(seed, focus_present, focus_absent, margin):
    logits = (3 * torch.randn(9, generator=generator(seed))).requires_grad_()
    present = torch.rand(9, generator=generator(seed)) < 0.5
    ours = asymmetric(logits, present, focus_present, focus_absent, margin)
    theirs = slow_asymmetric(logits, present, focus_present, focus_absent, margin)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(losses.sum(), logits)[0] for losses in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_asymmetric_loss_ends_at_the_logarithm_of_its_floor_in_float32():
    logits = torch.tensor([-200.0, 200.0], dtype=torch.bfloat16, requires_grad=True)
    losses = asymmetric(logits, torch.tensor([True, False]), 1, 2, margin=0.0)
    torch.testing.assert_close(losses, torch.full((2,), -math.log(1e-8)))
    losses.sum().backward()
    assert logits.grad.isfinite().all()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    focus_present=st.sampled_from([0.0, 1.0, 2.5]),
    focus_absent=st.sampled_from([0.0, 4.0]),
    margin=st.sampled_from([0.0, 0.05]),
)
def test_the_partial_asymmetric_loss_equals_the_definition_with_weights_that_have_no_gradient(
    seed, focus_present, focus_absent, margin
):
    logits_BC = (3 * torch.randn(4, 5, generator=generator(seed))).requires_grad_()
    labels_BC = torch.randint(-1, 2, (4, 5), generator=generator(seed + 1))
    total = 0 * logits_BC.double().sum()
    for x, y in zip(logits_BC.flatten().double(), labels_BC.flatten(), strict=True):
        p = torch.sigmoid(x)
        if y == PRESENT:
            total = total - (1 - p).detach() ** focus_present * p.log()
        elif y == ABSENT:
            right = torch.clamp(1 - p + margin, max=1)
            total = total - (1 - right).detach() ** focus_absent * right.log()
    theirs = total / max(int((labels_BC != UNKNOWN).sum()), 1)
    ours = partial_asymmetric(logits_BC, labels_BC, focus_present, focus_absent, margin)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits_BC)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_an_exponent_of_0_is_a_weight_of_1_also_where_the_score_is_certain():
    logits_BC = torch.tensor([[200.0, -200.0]], requires_grad=True)
    labels_BC = torch.tensor([[PRESENT, ABSENT]])
    loss = partial_asymmetric(logits_BC, labels_BC, 0.0, 0.0, margin=0.0)
    assert loss == 0
    (wrong_BC,) = torch.autograd.grad(partial_asymmetric(-logits_BC, labels_BC, 0.0, 0.0, margin=0.0), logits_BC)
    torch.testing.assert_close(wrong_BC, torch.tensor([[0.5, -0.5]]))


@pytest.mark.parametrize("name", ["bce", "asymmetric"])
def test_losses_of_known_labels_are_the_recorded_ones(name):
    recorded = golden("partial_losses")
    logits_BC = recorded["logits_BC"].clone().requires_grad_()
    if name == "bce":
        loss = partial_bce(logits_BC, recorded["labels_BC"])
    else:
        weights = [recorded[each].item() for each in ("focus_present", "focus_absent", "margin")]
        loss = partial_asymmetric(logits_BC, recorded["labels_BC"], *weights)
    loss.backward()
    assert_recorded(loss, recorded[f"{name}/loss64"])
    assert_recorded(logits_BC.grad, recorded[f"{name}/gradient64_BC"])
