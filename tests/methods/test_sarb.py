import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.losses import contrastive, partial_bce
from mlrpl_bench.method import Batch, Progress, Task
from mlrpl_bench.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.registry import load_methods

N, C, D, K = 12, 4, 5, 3
CODE = sys.modules[load_methods()["sarb"].cls.__module__]
BLENDING = Progress(epoch=5, epochs=20, step=3, steps_per_epoch=10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(rows=N, seed=0, unknown=0.5):
    draws = torch.rand(rows, C, generator=generator(seed))
    return torch.where(draws < unknown, UNKNOWN, torch.where(draws < (1 + unknown) / 2, PRESENT, ABSENT)).to(torch.int8)


def method(name="sarb", labels_NC=None, **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=D, attention_width=4, pool=True)
    entry = load_methods()[name]
    labels_NC = random_labels() if labels_NC is None else labels_NC
    task = Task(tuple("abcd"), labels_NC, 0.5, torch.randn(C, 7, generator=generator()))
    return entry.cls(backbone, task, entry.hyperparameters({"prototypes": K, **overrides}))


def batch_of(labels_BC, seed=0):
    maps_BDHW = torch.randn(len(labels_BC), 3, 6, 6, generator=generator(seed))
    return Batch(maps_BDHW, maps_BDHW, labels_BC, torch.arange(len(labels_BC)), generator(seed))


def with_prototypes(sarb, labels_NC, seed=0):
    """The method after one pass over its training set, in batches of five."""
    sarb.eval()
    whole = batch_of(labels_NC)
    with torch.no_grad():
        for start in range(0, len(labels_NC), 5):
            rows = slice(start, start + 5)
            maps_BDHW = whole.frozen_BDHW[rows]
            sarb.observe(Batch(maps_BDHW, maps_BDHW, labels_NC[rows], whole.index_B[rows], generator()))
    sarb.end_pass(generator(seed))
    return sarb.train()


# Blending, against loops


def slow_instance(features_BCD, labels_BC, alpha):
    features, targets = features_BCD.clone(), labels_BC.float()
    for n in range(len(labels_BC)):
        partner = len(labels_BC) - 1 - n
        for c in range(C):
            if labels_BC[n, c] == UNKNOWN and labels_BC[partner, c] == PRESENT:
                features[n, c] = alpha * features_BCD[n, c] + (1 - alpha) * features_BCD[partner, c]
                targets[n, c] = 1 - alpha
    return features, targets


def slow_prototype(features_BCD, labels_BC, category_of, prototypes_CKD, index_B, beta):
    features, targets = features_BCD.clone(), labels_BC.float()
    for n, c in category_of.items():
        features[n, c] = beta * features_BCD[n, c] + (1 - beta) * prototypes_CKD[c, index_B[n]]
        targets[n, c] = 1 - beta
    return features, targets


def assert_same_with_gradients(ours, theirs, inputs):
    direction_BCD, direction_BC = torch.randn(ours[0].shape), torch.randn(ours[1].shape)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)
    gradients = [
        torch.autograd.grad((features * direction_BCD).sum() + (targets * direction_BC).sum(), inputs)
        for features, targets in (ours, theirs)
    ]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_instance_blending_equals_the_loops(size):
    features_BCD = torch.randn(size, C, D, requires_grad=True)
    labels_BC = random_labels(size)
    labels_BC[0], labels_BC[-1] = UNKNOWN, PRESENT  # of a batch of one: PRESENT, and nothing to mix
    alpha = torch.tensor(0.3, requires_grad=True)
    mixed_BC = CODE.instance_choice(labels_BC)
    assert mixed_BC.any() == (size > 1)
    ours = CODE.blend(features_BCD, features_BCD.flip(0), labels_BC, mixed_BC, alpha)
    inputs = [features_BCD, alpha] if size > 1 else [features_BCD]
    assert_same_with_gradients(ours, slow_instance(features_BCD, labels_BC, alpha), inputs)


def test_instance_blending_by_hand():
    """Images 0 and 3 are partners, and 1 and 2."""
    labels_BC = torch.tensor(
        [
            [UNKNOWN, UNKNOWN, UNKNOWN, ABSENT],
            [PRESENT, PRESENT, UNKNOWN, UNKNOWN],
            [UNKNOWN, ABSENT, PRESENT, UNKNOWN],
            [PRESENT, ABSENT, UNKNOWN, PRESENT],
        ]
    )
    assert CODE.instance_choice(labels_BC).nonzero().tolist() == [[0, 0], [1, 2], [2, 0]]


@settings(deadline=None)  # the first call pays for start-up
@given(
    seed=st.integers(0, 2**31 - 1), counts=st.lists(st.integers(0, K), min_size=C, max_size=C), per_batch=st.booleans()
)
def test_prototype_choice_takes_one_unknown_category_that_has_prototypes_or_none(seed, counts, per_batch):
    labels_BC, num_prototypes_C = random_labels(6, seed), torch.tensor(counts)
    mixed_BC, index_B = CODE.prototype_choice(labels_BC, num_prototypes_C, generator(seed), per_batch)
    assert (index_B >= 0).all()
    for n in range(6):
        eligible = {c for c in range(C) if labels_BC[n, c] == UNKNOWN and counts[c] > 0}
        chosen = set(mixed_BC[n].nonzero().flatten().tolist())
        assert chosen <= eligible and len(chosen) == min(1, len(eligible))
        assert all(0 <= index_B[n] < counts[c] for c in chosen)


def test_prototype_choice_is_even_over_categories_and_prototypes():
    labels_BC = torch.tensor([[UNKNOWN, PRESENT, UNKNOWN, UNKNOWN]]).repeat(6000, 1)
    mixed_BC, index_B = CODE.prototype_choice(labels_BC, torch.tensor([3, 3, 3, 0]), generator())
    torch.testing.assert_close(mixed_BC.float().mean(0), torch.tensor([0.5, 0, 0.5, 0]), rtol=0, atol=0.03)
    torch.testing.assert_close(index_B.bincount() / 6000, torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_one_prototype_index_for_the_batch_only_if_asked_for():
    labels_BC, counts_C = torch.full((32, C), UNKNOWN), torch.full((C,), 10)
    assert len(CODE.prototype_choice(labels_BC, counts_C, generator(), per_batch=True)[1].unique()) == 1
    assert len(CODE.prototype_choice(labels_BC, counts_C, generator())[1].unique()) > 3


def test_prototype_blending_equals_the_loops():
    features_BCD, prototypes_CKD = torch.randn(6, C, D, requires_grad=True), torch.randn(C, K, D)
    labels_BC, beta = random_labels(6), torch.tensor(0.7, requires_grad=True)
    labels_BC[2] = ABSENT
    mixed_BC, index_B = CODE.prototype_choice(labels_BC, torch.full((C,), K), generator())
    category_of = dict(mixed_BC.nonzero().tolist())
    assert 2 not in category_of and len(category_of) >= 4
    prototypes_BD = prototypes_CKD[mixed_BC.int().argmax(1), index_B]
    ours = CODE.blend(features_BCD, prototypes_BD[:, None], labels_BC, mixed_BC, beta)
    theirs = slow_prototype(features_BCD, labels_BC, category_of, prototypes_CKD, index_B, beta)
    assert_same_with_gradients(ours, theirs, [features_BCD, beta])


@pytest.mark.parametrize("path", ["features", "target"])
def test_the_coefficient_learns_through_both_paths(path):
    """With loss BCE(w . f, t) and t = 1 - alpha, the target's path alone gives the logit."""
    features_BCD, labels_BC = torch.randn(2, 1, D), torch.tensor([[UNKNOWN], [PRESENT]])
    alpha, weight_D = torch.tensor(0.3, requires_grad=True), torch.randn(D)
    blended_BCD, targets_BC = CODE.blend(
        features_BCD, features_BCD.flip(0), labels_BC, CODE.instance_choice(labels_BC), alpha
    )
    if path == "features":
        targets_BC = targets_BC.detach()
    else:
        blended_BCD = blended_BCD.detach()
    logits_BC = blended_BCD @ weight_D
    (gradient,) = torch.autograd.grad(2 * partial_bce(logits_BC, targets_BC), alpha)  # 2: mean over two known entries
    logit = logits_BC[0, 0].detach()
    through_features = (torch.sigmoid(logit) - 0.7) * ((features_BCD[0, 0] - features_BCD[1, 0]) @ weight_D)
    torch.testing.assert_close(gradient, through_features if path == "features" else logit)
    assert gradient != 0


def test_a_coefficient_of_one_changes_no_feature_and_adds_no_target():
    features_BCD, labels_BC = torch.randn(4, C, D), random_labels(4)
    blended_BCD, targets_BC = CODE.blend(
        features_BCD, features_BCD.flip(0), labels_BC, CODE.instance_choice(labels_BC), torch.tensor(1.0)
    )
    assert torch.equal(blended_BCD, features_BCD) and torch.equal(targets_BC, labels_BC.float())


# Prototypes


def test_prototypes_are_the_cluster_centres_of_known_positives():
    labels_NC = random_labels()
    labels_NC[:, 0] = torch.tensor([PRESENT] * 2 + [UNKNOWN] * 5 + [ABSENT] * 5)
    labels_NC[:, 1] = UNKNOWN
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC).eval()
    assert sarb.num_prototypes_C[:2].tolist() == [2, 0]  # no more than there are positives; none without
    features_NCD = sarb.network.features(sarb.trained(batch_of(labels_NC).frozen_BDHW)).detach()
    close = torch.cdist(features_NCD[:2, 0], sarb.prototypes_CKD[0, :2]).amin(dim=0)
    torch.testing.assert_close(close, torch.zeros(2), rtol=0, atol=2e-3)  # two points, two centres: the points
    assert (sarb.prototypes_CKD[1] == 0).all() and (sarb.prototypes_CKD[0, 2:] == 0).all()
    assert not sarb.prototypes_CKD.requires_grad


def test_one_centre_is_the_mean_of_all_batches():
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC, prototypes=1), labels_NC).eval()
    features_NCD = sarb.network.features(sarb.trained(batch_of(labels_NC).frozen_BDHW)).detach()
    for c in range(C):
        expected_D = features_NCD[labels_NC[:, c] == PRESENT, c].mean(0)
        torch.testing.assert_close(sarb.prototypes_CKD[c, 0], expected_D, rtol=1e-4, atol=1e-5)


def test_a_second_pass_replaces_the_first():
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    without = labels_NC.clone()
    without[:, 0] = UNKNOWN
    with_prototypes(sarb, without)
    assert sarb.num_prototypes_C[0] == 0 and (sarb.prototypes_CKD[0] == 0).all()


def test_clustering_depends_on_the_generator_alone():
    features_SD = torch.randn(200, D, generator=generator(1))
    first, again, other = (CODE.cluster(features_SD, 5, 1000, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_clustering_looks_at_no_more_than_the_cap():
    features_SD = torch.arange(100.0)[:, None]
    centres = CODE.cluster(features_SD, 10, 10, generator()).flatten()
    assert len(centres) == 10
    torch.testing.assert_close(centres, centres.round())  # ten samples, ten centres: each is one of the features


def test_passes_are_due_at_the_start_and_then_every_interval():
    def due(sarb, epochs):
        return [epoch for epoch in range(epochs) if sarb.passes(Progress(epoch, epochs))]

    assert due(method(), 20) == [5, 10, 15]
    assert due(method(), 8) == [2, 4, 6]
    assert due(method(start=3, interval=10), 20) == [3, 13]
    assert due(method("ilrb"), 20) == []


# The whole method


def test_the_losses_are_the_sum_of_their_parts(monkeypatch):
    """The concatenated run of the head gives what three runs give."""
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    batch = batch_of(labels_NC[:6])
    choice = CODE.prototype_choice(labels_NC[:6], sarb.num_prototypes_C, generator())
    monkeypatch.setattr(CODE, "prototype_choice", lambda *_: choice)
    losses = sarb.losses(batch, BLENDING)

    features_BCD = sarb.network.features(sarb.trained(batch.frozen_BDHW))
    instance = slow_instance(features_BCD, batch.labels_BC, sarb.alpha)
    category_of = dict(choice[0].nonzero().tolist())
    prototype = slow_prototype(features_BCD, batch.labels_BC, category_of, sarb.prototypes_CKD, choice[1], sarb.beta)
    expected = {
        "partial_bce": partial_bce(sarb(batch.frozen_BDHW), batch.labels_BC),
        "instance": partial_bce(sarb.network.head(instance[0]), instance[1]),
        "prototype": partial_bce(sarb.network.head(prototype[0]), prototype[1]),
        "contrastive": 0.05 * contrastive(features_BCD, batch.labels_BC, generator()),
    }
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)


def test_before_the_start_there_is_no_blending_and_contrast_warms_up():
    sarb, weights = method(), []
    for progress in (Progress(0, 20, 0, 4), Progress(0, 20, 1, 4), Progress(0, 20, 2, 4), Progress(1, 20, 0, 4)):
        losses = sarb.losses(batch_of(random_labels(6)), progress)
        assert set(losses) == {"partial_bce", "contrastive"}
        weights.append(losses["contrastive"].item())
    full = weights[-1]
    assert full > 0 and weights == pytest.approx([0, full / 4, full / 2, full])


@pytest.mark.parametrize(
    ("name", "terms", "trained"),
    [
        ("sarb", {"instance", "prototype", "contrastive"}, {"alpha", "beta"}),
        ("ilrb", {"instance"}, {"alpha"}),
        ("ilrb_fixed", {"instance"}, set()),
        ("plrb", {"prototype", "contrastive"}, {"beta"}),
        ("plrb_fixed", {"prototype", "contrastive"}, set()),
        ("plrb_no_contrastive", {"prototype"}, {"beta"}),
    ],
)
def test_every_ablation_has_its_terms_and_trains_all_that_it_should(name, terms, trained):
    labels_NC = random_labels()
    sarb = method(name, labels_NC)
    if sarb.passes(BLENDING):
        with_prototypes(sarb, labels_NC)
    losses = sarb.losses(batch_of(labels_NC[:6]), BLENDING)
    assert set(losses) == {"partial_bce"} | terms
    sum(losses.values()).backward()
    parameters = {key: value for key, value in sarb.named_parameters() if value.requires_grad}
    assert set(parameters) & {"alpha", "beta"} == trained
    assert all(value.grad.abs().max() > 0 for value in parameters.values())
    assert all(float(sarb.scalars()[key]) == 0.5 for key in ("alpha", "beta") if key in sarb.scalars())


def test_coefficients_that_an_optimiser_pushed_out_are_clamped_before_blending():
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    sarb.alpha.data.fill_(1.2)
    sarb.beta.data.fill_(-0.3)
    sarb.losses(batch_of(labels_NC), BLENDING)
    assert (sarb.alpha.item(), sarb.beta.item()) == (1, 0)


def test_when_everything_is_known_blending_changes_nothing():
    labels_NC = random_labels(unknown=0)
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    losses = sarb.losses(batch_of(labels_NC), BLENDING)
    torch.testing.assert_close(losses["instance"], losses["partial_bce"])
    torch.testing.assert_close(losses["prototype"], losses["partial_bce"])
    assert sarb.mixed_shares.tolist() == [0, 0]


@pytest.mark.parametrize("rows", [1, 3, 6])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("known", [True, False])
def test_hard_batches_give_finite_losses_and_gradients(rows, precision, known):
    labels_NC = random_labels()
    labels_NC[:, 1] = UNKNOWN  # a category without known positives
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    labels_BC = labels_NC[:rows] if known else torch.full((rows, C), UNKNOWN, dtype=torch.int8)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        losses = sarb.losses(batch_of(labels_BC), BLENDING)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(value.grad.isfinite().all() for value in sarb.parameters())


def test_blending_before_the_first_pass_finds_no_prototypes_and_mixes_none():
    sarb = method()
    losses = sarb.losses(batch_of(random_labels(6)), BLENDING)
    torch.testing.assert_close(losses["prototype"], losses["partial_bce"])


def test_the_batch_generator_is_the_only_source_of_randomness():
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)

    def losses(global_seed, seed):
        torch.manual_seed(global_seed)
        batch = replace(batch_of(labels_NC), generator=generator(seed))
        return [loss.item() for loss in sarb.losses(batch, BLENDING).values()]

    assert losses(0, seed=0) == losses(1, seed=0) != losses(0, seed=1)


def test_the_reported_shares_are_means_over_the_epoch_so_far():
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    some, none = batch_of(labels_NC[:6]), batch_of(torch.full((6, C), ABSENT, dtype=torch.int8))
    share = CODE.instance_choice(some.labels_BC).float().mean().item()
    assert share > 0
    for step, (batch, expected) in enumerate([(some, share), (none, share / 2), (none, share / 3)]):
        sarb.losses(batch, Progress(5, 20, step, 3))
        assert float(sarb.scalars()["instance_mixed_share"]) == pytest.approx(expected)
    sarb.losses(none, Progress(6, 20, 0, 3))  # a new epoch starts anew
    assert float(sarb.scalars()["instance_mixed_share"]) == 0


def test_a_restored_method_continues_as_the_saved_one():
    labels_NC = random_labels()
    sarb = with_prototypes(method(labels_NC=labels_NC), labels_NC)
    restored = method(labels_NC=labels_NC)
    restored.load_state_dict(sarb.state_dict())
    ours, theirs = (one.losses(batch_of(labels_NC), BLENDING) for one in (sarb, restored))
    assert ours["prototype"] != ours["partial_bce"]
    assert {name: loss.item() for name, loss in ours.items()} == {name: loss.item() for name, loss in theirs.items()}


def test_attention_has_one_map_per_category():
    maps_BCHW = method().attention(batch_of(random_labels(2)).frozen_BDHW)
    torch.testing.assert_close(maps_BCHW.sum((2, 3)), torch.ones(2, C))
