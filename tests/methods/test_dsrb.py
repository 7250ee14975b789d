import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.blending import blend, instance_choice
from mlrpl_bench.models.losses import contrastive, partial_bce
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.loss_samples import (
    C,
    N,
    batch_of,
    generator,
    method,
    random_labels,
)
from tests.helpers.prototype_samples import after_a_pass, history_of

CODE = sys.modules[load_methods()["dsrb"].cls.__module__]
BLENDING = Progress(epoch=5, epochs=20, step=3, steps_per_epoch=10)
D = 5


# Quadrants


def slow_quadrants(weights_BCHW, maps_BDHW):
    """Row by the largest of each row's maxima, column likewise."""
    weights_BCHW, maps_BDHW = weights_BCHW.detach(), maps_BDHW.detach()
    quadrants_BC = torch.zeros(weights_BCHW.shape[:2], dtype=torch.int64)
    height, width = maps_BDHW.shape[-2:]
    for n in range(len(maps_BDHW)):
        for c in range(weights_BCHW.shape[1]):
            total = {}
            for h in range(height):
                for w in range(width):
                    total[h, w] = sum(float(weights_BCHW[n, c, h, w] * value) for value in maps_BDHW[n, :, h, w])
            row = max(range(height), key=lambda h: max(total[h, w] for w in range(width)))
            column = max(range(width), key=lambda w: max(total[h, w] for h in range(height)))
            quadrants_BC[n, c] = (2 if row >= height // 2 else 0) + (1 if column >= width // 2 else 0)
    return quadrants_BC


@pytest.mark.parametrize(("height", "width"), [(7, 7), (4, 5), (1, 3), (1, 1)])
def test_the_quadrant_is_that_of_the_strongest_position(height, width):
    weights_BCHW = torch.rand(6, C, height, width, generator=generator())
    maps_BDHW = torch.randn(6, D, height, width, generator=generator(1))
    quadrants_BC = CODE.strongest_quadrant(weights_BCHW, maps_BDHW)
    assert torch.equal(quadrants_BC, slow_quadrants(weights_BCHW, maps_BDHW))
    assert len(quadrants_BC.unique()) == (4 if min(height, width) > 1 else 2 if width > 1 else 1)


def test_of_seven_rows_three_are_above_and_four_below():
    maps_BDHW = torch.ones(1, 1, 7, 7)
    weights_BCHW = torch.zeros(1, 4, 7, 7)
    for c, (row, column) in enumerate([(2, 2), (2, 3), (3, 2), (3, 3)]):
        weights_BCHW[0, c, row, column] = 1
    assert CODE.strongest_quadrant(weights_BCHW, maps_BDHW).tolist() == [[0, 1, 2, 3]]


def test_channels_are_added_up_with_their_signs():
    maps_BDHW = torch.zeros(1, 2, 2, 2)
    maps_BDHW[0, :, 0, 0] = torch.tensor([5.0, -6.0])
    maps_BDHW[0, :, 1, 1] = torch.tensor([1.0, 0.0])
    assert CODE.strongest_quadrant(torch.full((1, 1, 2, 2), 0.25), maps_BDHW).tolist() == [[3]]


# Prototypes


def averaged(labels_NC, features_NCD, quadrants_NC, samples=100, seed=0):
    prototypes = CODE.QuadrantPrototypes(C, D, samples)
    for rows in (slice(0, 5), slice(5, None)):
        prototypes.observe(features_NCD[rows], quadrants_NC[rows], labels_NC[rows])
    prototypes.average(generator(seed))
    return prototypes


@given(seed=st.integers(0, 2**31 - 1))
def test_prototypes_are_means_by_quadrant_or_of_the_category(seed):
    labels_NC, features_NCD = random_labels(seed=seed), torch.randn(N, C, D, generator=generator(seed))
    labels_NC[:, 1] = UNKNOWN
    quadrants_NC = torch.randint(0, 3, (N, C), generator=generator(seed))  # nothing in the last one
    prototypes = averaged(labels_NC, features_NCD, quadrants_NC)
    for c in range(C):
        positive = [n for n in range(N) if labels_NC[n, c] == PRESENT]
        assert prototypes.exist_C[c] == bool(positive)
        for quadrant in range(4):
            there = [n for n in positive if quadrants_NC[n, c] == quadrant] or positive
            expected_D = sum((features_NCD[n, c] for n in there), torch.zeros(D)) / max(1, len(there))
            torch.testing.assert_close(prototypes.means_CQD[c, quadrant], expected_D, rtol=1e-5, atol=1e-6)


def test_no_more_than_the_cap_is_averaged_and_the_generator_says_which():
    labels_NC, quadrants_NC = torch.full((N, C), PRESENT), torch.zeros(N, C, dtype=torch.int64)
    features_NCD = torch.randn(N, C, D, generator=generator())
    firsts = []
    for seed in (0, 0, 1):
        means_CQD = averaged(labels_NC, features_NCD, quadrants_NC, samples=1, seed=seed).means_CQD
        for c in range(C):
            assert (features_NCD[:, c] - means_CQD[c, 0]).abs().amax(dim=1).min() == 0  # one of the features
            torch.testing.assert_close(means_CQD[c, 1], features_NCD[:, c].mean(0))  # empty: all of the category
        firsts.append(means_CQD)
    assert torch.equal(firsts[0], firsts[1]) and not torch.equal(firsts[0], firsts[2])


def test_a_second_pass_replaces_the_first():
    labels_NC, quadrants_NC = torch.full((N, C), PRESENT), torch.zeros(N, C, dtype=torch.int64)
    prototypes = averaged(labels_NC, torch.randn(N, C, D), quadrants_NC)
    labels_NC[:, 0] = UNKNOWN
    prototypes.observe(torch.randn(N, C, D), quadrants_NC, labels_NC)
    prototypes.average(generator())
    assert prototypes.exist_C.tolist() == [False, True, True, True] and not prototypes.means_CQD[0].any()


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, C + 1))
def test_a_choice_takes_a_prototype_from_another_quadrant(seed, count):
    labels_BC, quadrants_BC = random_labels(6, seed), torch.randint(0, 4, (6, C), generator=generator(seed))
    prototypes = CODE.QuadrantPrototypes(C, 1, 100)
    prototypes.means_CQD.copy_(torch.arange(4.0 * C).view(C, 4, 1))  # tell their place
    prototypes.exist_C.copy_(torch.tensor([True, False, True, True]))
    mixed_BC, others_BCD = prototypes(labels_BC, quadrants_BC, generator(seed), count)
    for n in range(6):
        eligible = {c for c in (0, 2, 3) if labels_BC[n, c] == UNKNOWN}
        chosen = set(mixed_BC[n].nonzero().flatten().tolist())
        assert chosen <= eligible and len(chosen) == min(count, len(eligible))
        for c in range(C):
            category, quadrant = divmod(int(others_BCD[n, c, 0]), 4)
            assert category == c and quadrant != quadrants_BC[n, c]


def test_the_other_three_quadrants_are_equally_likely():
    prototypes = CODE.QuadrantPrototypes(C, 1, 100)
    prototypes.means_CQD.copy_(torch.arange(4.0)[:, None].expand(C, 4, 1))
    quadrants_BC = torch.ones(3000, C, dtype=torch.int64)
    _, others_BCD = prototypes(torch.full((3000, C), UNKNOWN), quadrants_BC, generator(), 1)
    shares = others_BCD.flatten().long().bincount(minlength=4) / others_BCD.numel()
    torch.testing.assert_close(shares, torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]), rtol=0, atol=0.02)


# The whole method


def test_features_are_those_of_ssgrl_and_prototypes_their_means():
    labels_NC = random_labels()
    dsrb = after_a_pass(method("dsrb", labels_NC), labels_NC).eval()
    batch = batch_of(labels_NC)
    features_NCD, quadrants_NC = dsrb._features(batch)
    maps_BDHW = dsrb.trained(batch.frozen_BDHW)
    torch.testing.assert_close(features_NCD, dsrb.network.features(maps_BDHW))
    expected_NC = slow_quadrants(dsrb.network.attention(maps_BDHW), dsrb.network.trunk(maps_BDHW))
    assert torch.equal(quadrants_NC, expected_NC)
    for c in range(C):
        for quadrant in range(4):
            positive_N = labels_NC[:, c] == PRESENT
            there_N = positive_N & (quadrants_NC[:, c] == quadrant)
            expected_D = features_NCD[there_N if there_N.any() else positive_N, c].mean(0).detach()
            torch.testing.assert_close(dsrb.prototypes.means_CQD[c, quadrant], expected_D, rtol=1e-5, atol=1e-5)


def test_blending_maps_and_adding_up_their_positions_is_blending_features():
    """What the published code means to do is SARB's instance-level blending."""
    dsrb, labels_BC = method("dsrb"), random_labels(6)
    maps_BDHW = dsrb.network.trunk(dsrb.trained(batch_of(labels_BC).frozen_BDHW))
    weights_BCHW = dsrb.network.decoupling.attention(maps_BDHW, dsrb.network.words_CE)
    category_maps_BCDHW = weights_BCHW[:, :, None] * maps_BDHW[:, None]
    mixed_BC, alpha = instance_choice(labels_BC), 0.3
    kept_BC = torch.where(mixed_BC, alpha, 1.0)[..., None, None, None]
    blended_BCDHW = kept_BC * category_maps_BCDHW + (1 - kept_BC) * category_maps_BCDHW.flip(0)
    features_BCD = category_maps_BCDHW.sum((3, 4))
    ours, _, _ = blend(features_BCD, features_BCD.flip(0), labels_BC, mixed_BC, torch.tensor(alpha))
    assert mixed_BC.any()
    torch.testing.assert_close(ours, blended_BCDHW.sum((3, 4)), rtol=1e-5, atol=1e-5)


def test_the_losses_are_the_sum_of_their_parts(monkeypatch):
    labels_NC = random_labels()
    dsrb = after_a_pass(method("dsrb", labels_NC, categories=2), labels_NC)
    batch = batch_of(labels_NC[:6])
    features_BCD, quadrants_BC = dsrb._features(batch)
    choice = dsrb.prototypes(batch.labels_BC, quadrants_BC, generator(), 2)
    asked = []
    monkeypatch.setattr(dsrb.prototypes, "forward", lambda *given: asked.append(given) or choice)
    losses = dsrb.losses(batch, BLENDING)
    assert torch.equal(asked[0][0], batch.labels_BC) and torch.equal(asked[0][1], quadrants_BC) and asked[0][3] == 2

    assert choice[0].sum(dim=1).max() == 2
    blending, labels_BC = dsrb.blending, batch.labels_BC
    instance = blend(features_BCD, features_BCD.flip(0), labels_BC, instance_choice(labels_BC), blending.alpha)
    prototype = blend(features_BCD, choice[1], labels_BC, choice[0], blending.beta)
    expected = {
        "partial_bce": partial_bce(dsrb(batch.frozen_BDHW), labels_BC),
        "instance": partial_bce(dsrb.network.head(instance[0]), instance[1]),
        "prototype": partial_bce(dsrb.network.head(prototype[0]), prototype[1]),
        "contrastive": 0.05 * contrastive(features_BCD, labels_BC, generator()),
    }
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    assert all(value.grad.abs().max() > 0 for value in dsrb.parameters())


def test_when_everything_is_known_blending_changes_nothing():
    labels_NC = random_labels(unknown=0)
    dsrb = after_a_pass(method("dsrb", labels_NC), labels_NC)
    losses = dsrb.losses(batch_of(labels_NC), BLENDING)
    torch.testing.assert_close(losses["instance"], losses["partial_bce"])
    torch.testing.assert_close(losses["prototype"], losses["partial_bce"])


def test_blending_before_the_first_pass_finds_no_prototypes_and_mixes_none():
    losses = method("dsrb").losses(batch_of(random_labels(6)), BLENDING)
    torch.testing.assert_close(losses["prototype"], losses["partial_bce"])


def test_passes_and_blending_start_at_a_quarter():
    dsrb = method("dsrb")
    assert [epoch for epoch in range(20) if dsrb.passes(Progress(epoch, 20))] == [5, 10, 15]
    for epoch in (4, 5):
        expected = {"partial_bce", "contrastive"} | ({"instance", "prototype"} if epoch == 5 else set())
        assert set(dsrb.losses(batch_of(random_labels(4)), Progress(epoch, 20))) == expected


def test_a_short_run_blends_from_its_second_quarter_on():
    history = history_of("dsrb", epochs=4)
    assert [row["epoch"] for row in history if "loss.prototype" in row] == [1, 2, 3]
    assert [row["scalar.prototype_mixed_share"] > 0 for row in history] == [False, True, True, True]


def test_another_generator_of_the_batch_gives_other_losses():
    labels_NC = random_labels()
    labels_NC[0] = ABSENT
    dsrb = after_a_pass(method("dsrb", labels_NC), labels_NC)

    def losses(seed):
        batch = replace(batch_of(labels_NC), generator=generator(seed))
        return [loss.item() for loss in dsrb.losses(batch, BLENDING).values()]

    assert losses(seed=0) != losses(seed=1)
