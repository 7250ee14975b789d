import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.method import Batch, Progress
from tests.helpers.loss_samples import (
    LATE,
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

EARLY = Progress(epoch=4, epochs=20, step=3, steps_per_epoch=10)


def slow(logits_BC, labels_BC, focus, margin, ignored=frozenset()):
    """Entry by entry; `focus` is for present, absent and unknown; the weights have no gradient."""
    terms = {"known": torch.tensor(0.0), "assumed_absent": torch.tensor(0.0)}
    for n in range(len(labels_BC)):
        for c in range(C):
            p = torch.sigmoid(logits_BC[n, c].double())
            q = (p - margin).clamp(min=0)
            if labels_BC[n, c] == PRESENT:
                terms["known"] = terms["known"] - (1 - p.item()) ** focus[0] * p.log()
            elif labels_BC[n, c] == ABSENT:
                terms["known"] = terms["known"] - q.item() ** focus[1] * (1 - q).log()
            elif (n, c) not in ignored:
                terms["assumed_absent"] = terms["assumed_absent"] - q.item() ** focus[2] * (1 - q).log()
    return {key: value / labels_BC.numel() for key, value in terms.items()}


def unknown_entries(labels_BC):
    return {(n, c) for n in range(len(labels_BC)) for c in range(C) if labels_BC[n, c] == UNKNOWN}


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    focus=st.tuples(*3 * [st.sampled_from([0.0, 1.0, 4.0])]),
    margin=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_partial_asl_equals_the_loops_with_its_gradient(seed, focus, margin):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    options = dict(zip(("focus_present", "focus_absent", "focus_unknown"), focus, strict=True))
    ours = losses_of(logits_BC, labels_BC, method("asl", margin=margin, **options))
    assert_same(ours, slow(logits_BC, labels_BC, focus, margin), logits_BC)


def test_asl_has_its_papers_constants_and_csl_those_for_labels_hidden_at_random():
    logits_BC, labels_BC = random_logits(), random_labels()
    assert_same(losses_of(logits_BC, labels_BC, method("asl")), slow(logits_BC, labels_BC, (0, 4, 4), 0.05), logits_BC)
    csl = method("csl", labels_BC, ignored_per_image=0)
    assert_same(losses_of(logits_BC, labels_BC, csl), slow(logits_BC, labels_BC, (0, 1, 4), 0.0), logits_BC)
    options = csl.hyperparameters
    assert (options.prior_threshold, method("csl").hyperparameters.ignored_per_image) == (0.5, 5)


@pytest.mark.parametrize("progress", [EARLY, LATE])
def test_ignoring_leaves_all_unknown_labels_out(progress):
    logits_BC, labels_BC = random_logits(), random_labels()
    losses = losses_of(logits_BC, labels_BC, method("asl", unknown="ignored"), progress)
    theirs = slow(logits_BC, labels_BC, (0, 4, 4), 0.05)
    assert_same(losses, {"known": theirs["known"]}, logits_BC)


def test_very_easy_negatives_are_forgotten():
    logits_BC = torch.full((1, C), -4.0, requires_grad=True)  # a score of 0.018, below the margin
    losses = losses_of(logits_BC, torch.full((1, C), UNKNOWN, dtype=torch.int8), method("asl", focus_unknown=0.0))
    losses["assumed_absent"].backward()
    assert losses["assumed_absent"] == 0 and not logits_BC.grad.any()


def slow_ignored(logits_BC, labels_BC, prior_C, threshold, num_likely):
    """Entries of common categories, and the highest of the batch."""
    ranked = sorted(unknown_entries(labels_BC), key=lambda entry: -logits_BC[entry].item())
    return set(ranked[:num_likely]) | {(n, c) for n, c in ranked if prior_C[c] > threshold}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), per_image=st.sampled_from([0, 1, 2, 5]))
def test_csl_leaves_out_common_categories_and_the_highest_scores_of_the_batch(seed, per_image):
    logits_BC, labels_BC = random_logits(6, seed), random_labels(6, seed, unknown=0.8)
    csl = method("csl", ignored_per_image=per_image)
    csl.prior_C.copy_(torch.rand(C, generator=generator(seed)))
    ignored = slow_ignored(logits_BC, labels_BC, csl.prior_C, 0.5, 6 * per_image)
    ours = losses_of(logits_BC, labels_BC, csl, Progress(7, 20))
    assert_same(ours, slow(logits_BC, labels_BC, (0, 1, 4), 0.0, ignored), logits_BC)
    assert float(csl.scalars()["ignored_share"]) == pytest.approx(len(ignored) / (6 * C))
    assert float(csl.scalars()["categories_ignored"]) == (csl.prior_C > 0.5).sum()


def test_scores_are_ranked_over_the_batch_and_not_per_image():
    labels_BC = torch.full((2, C), UNKNOWN, dtype=torch.int8)
    logits_BC = torch.tensor([[4.0, 3.0, -5.0, -5.0], [-3.0, -3.0, -3.0, -3.0]])
    losses = losses_of(logits_BC, labels_BC, method("csl", ignored_per_image=1))
    theirs = slow(logits_BC, labels_BC, (0, 1, 4), 0.0, {(0, 0), (0, 1)})
    torch.testing.assert_close(losses["assumed_absent"], theirs["assumed_absent"].float())


def test_until_the_pass_csl_trains_on_known_labels_alone():
    logits_BC, labels_BC = random_logits(), random_labels()
    losses = losses_of(logits_BC, labels_BC, method("csl"), EARLY)
    assert_same(losses, {"known": slow(logits_BC, labels_BC, (0, 1, 4), 0.0)["known"]}, logits_BC)


@pytest.mark.parametrize(("epochs", "start"), [(20, 5), (10, 2), (40, 10)])
def test_csl_wants_one_pass_when_the_selection_starts(epochs, start):
    csl, asl, labels_BC = method("csl"), method("asl"), random_labels()
    progresses = [Progress(epoch, epochs) for epoch in range(epochs)]
    assert [one.epoch for one in progresses if csl.passes(one)] == [start]
    assert not any(asl.passes(one) for one in progresses)
    selecting = ["assumed_absent" in losses_of(random_logits(), labels_BC, csl, one) for one in progresses]
    assert selecting == [epoch >= start for epoch in range(epochs)]


def test_the_prior_is_the_mean_score_over_the_training_set():
    csl, whole = method("csl").eval(), batch_of(random_labels())
    with torch.no_grad():
        for start in range(0, N, 5):  # the last batch is shorter
            rows = slice(start, start + 5)
            maps_BDHW = whole.frozen_BDHW[rows]
            csl.observe(Batch(maps_BDHW, maps_BDHW, whole.labels_BC[rows], whole.index_B[rows], generator()))
        expected_C = torch.stack([torch.sigmoid(csl(whole.frozen_BDHW[n : n + 1]))[0] for n in range(N)]).mean(0)
    csl.end_pass(generator())
    torch.testing.assert_close(csl.prior_C, expected_C)
    assert float(csl.scalars()["largest_prior"]) == pytest.approx(expected_C.max().item())
    restored = method("csl")
    restored.load_state_dict(csl.state_dict())
    assert torch.equal(restored.prior_C, csl.prior_C)


def test_a_second_pass_forgets_the_first():
    csl, batch = method("csl").eval(), batch_of(random_labels())
    priors = []
    for logit in (3.0, -3.0):
        csl.forward = lambda frozen_BDHW, logit=logit: torch.full((N, C), logit)
        csl.observe(batch)
        csl.end_pass(generator())
        priors.append(csl.prior_C.clone())
    torch.testing.assert_close(priors[1], torch.sigmoid(torch.full((C,), -3.0)))


def test_extreme_logits_have_finite_losses_and_gradients():
    logits_BC = torch.tensor([[-300.0, 300.0, -300.0, 300.0]], requires_grad=True)
    for label in (PRESENT, UNKNOWN, ABSENT):
        for margin in (0.0, 0.05):
            labels_BC = torch.full((1, C), label, dtype=torch.int8)
            losses = losses_of(logits_BC, labels_BC, method("asl", margin=margin))
            (gradient,) = torch.autograd.grad(sum(losses.values()), logits_BC)
            assert sum(losses.values()).isfinite() and gradient.isfinite().all()
