import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, UNKNOWN
from mlrpl_bench.models.layers.blending import blend, instance_choice
from mlrpl_bench.models.losses import contrastive, partial_bce
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.loss_samples import (
    C,
    batch_of,
    generator,
    random_labels,
)
from tests.helpers.loss_samples import method as method_called
from tests.helpers.prototype_samples import after_a_pass, history_of

K = 3
CODE = sys.modules[load_methods()["sarb"].cls.__module__]
BLENDING = Progress(epoch=5, epochs=20, step=3, steps_per_epoch=10)


def method(name="sarb", labels_NC=None, **overrides):
    return method_called(name, labels_NC, **{"prototypes": K, **overrides})


# The choice of prototypes


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
    labels_BC = torch.tensor([[UNKNOWN, ABSENT, UNKNOWN, UNKNOWN]]).repeat(6000, 1)
    mixed_BC, index_B = CODE.prototype_choice(labels_BC, torch.tensor([3, 3, 3, 0]), generator())
    torch.testing.assert_close(mixed_BC.float().mean(0), torch.tensor([0.5, 0, 0.5, 0]), rtol=0, atol=0.03)
    torch.testing.assert_close(index_B.bincount() / 6000, torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_one_prototype_index_for_the_batch_only_if_asked_for():
    labels_BC, counts_C = torch.full((32, C), UNKNOWN), torch.full((C,), 10)
    assert len(CODE.prototype_choice(labels_BC, counts_C, generator(), per_batch=True)[1].unique()) == 1
    assert len(CODE.prototype_choice(labels_BC, counts_C, generator())[1].unique()) > 3


# Prototypes


def test_prototypes_are_made_of_the_features_of_known_positives():
    labels_NC = random_labels()
    sarb = after_a_pass(method(labels_NC=labels_NC, prototypes=1), labels_NC).eval()
    features_NCD = sarb.network.features(sarb.trained(batch_of(labels_NC).frozen_BDHW)).detach()
    for c in range(C):
        expected_D = features_NCD[labels_NC[:, c] == 1, c].mean(0)
        torch.testing.assert_close(sarb.prototypes.centres_CKD[c, 0], expected_D, rtol=1e-4, atol=1e-5)


def test_passes_are_due_at_the_start_and_then_every_interval():
    def due(sarb, epochs):
        return [epoch for epoch in range(epochs) if sarb.passes(Progress(epoch, epochs))]

    assert due(method(), 20) == [5, 10, 15]
    assert due(method(), 8) == [2, 4, 6]
    assert due(method(start=3, interval=10), 20) == [3, 13]
    assert due(method("ilrb"), 20) == []


# The whole method


@pytest.mark.parametrize("name", ["sarb", "sarb_sam"])
def test_the_losses_are_the_sum_of_their_parts(monkeypatch, name):
    """The concatenated run of the head gives what three runs give."""
    labels_NC = random_labels()
    sarb = after_a_pass(method(name, labels_NC), labels_NC)
    batch = batch_of(labels_NC[:6])
    choice = CODE.prototype_choice(labels_NC[:6], sarb.prototypes.num_C, generator())
    monkeypatch.setattr(CODE, "prototype_choice", lambda *_: choice)
    losses = sarb.losses(batch, BLENDING)

    features_BCD, labels_BC = sarb.network.features(sarb.trained(batch.frozen_BDHW)), batch.labels_BC
    mixed_BC, index_B = choice
    others_BCD = torch.zeros_like(features_BCD)
    for n, c in mixed_BC.nonzero().tolist():
        others_BCD[n, c] = sarb.prototypes.centres_CKD[c, index_B[n]]
    assert others_BCD.any()
    instance = blend(features_BCD, features_BCD.flip(0), labels_BC, instance_choice(labels_BC), sarb.blending.alpha)
    prototype = blend(features_BCD, others_BCD, labels_BC, mixed_BC, sarb.blending.beta)
    expected = {
        "partial_bce": partial_bce(sarb(batch.frozen_BDHW), labels_BC),
        "instance": partial_bce(sarb.network.head(instance[0]), instance[1]),
        "prototype": partial_bce(sarb.network.head(prototype[0]), prototype[1]),
        "contrastive": 0.05 * contrastive(features_BCD, labels_BC, generator()),
    }
    assert set(losses) == set(expected)
    for term, loss in losses.items():
        torch.testing.assert_close(loss, expected[term], rtol=1e-5, atol=1e-6)


def test_before_the_start_there_is_no_blending_and_contrast_warms_up():
    sarb, weights = method(), []
    for progress in (Progress(0, 20, 0, 4), Progress(0, 20, 1, 4), Progress(0, 20, 2, 4), Progress(1, 20, 0, 4)):
        losses = sarb.losses(batch_of(random_labels(6)), progress)
        assert set(losses) == {"partial_bce", "contrastive"}
        weights.append(losses["contrastive"].item())
    full = weights[-1]
    assert full > 0 and weights == pytest.approx([0, full / 4, full / 2, full])


def test_a_short_run_blends_from_its_second_quarter_on():
    history = history_of("sarb", epochs=4)
    assert [row["epoch"] for row in history if "loss.instance" in row] == [1, 2, 3]
    assert [row["scalar.prototype_mixed_share"] > 0 for row in history] == [False, True, True, True]
    assert history[0]["scalar.alpha"] == 0.5 != history[1]["scalar.alpha"]


@pytest.mark.parametrize(
    ("name", "terms", "trained"),
    [
        ("sarb", {"instance", "prototype", "contrastive"}, {"alpha", "beta"}),
        ("sarb_sam", {"instance", "prototype", "contrastive"}, {"alpha", "beta"}),
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
        after_a_pass(sarb, labels_NC)
    losses = sarb.losses(batch_of(labels_NC[:6]), BLENDING)
    assert set(losses) == {"partial_bce"} | terms
    sum(losses.values()).backward()
    parameters = {key: value for key, value in sarb.named_parameters() if value.requires_grad}
    coefficients = {"blending.alpha", "blending.beta"}
    assert set(parameters) & coefficients == {f"blending.{key}" for key in trained}
    assert all(value.grad.abs().max() > 0 for value in parameters.values())
    assert all(float(sarb.scalars()[key]) == 0.5 for key in ("alpha", "beta") if key in sarb.scalars())


def test_only_the_attention_of_sarb_sam_is_another_one():
    sarb, by_maps = method(), method("sarb_sam")
    attention = {"network.decoupling", "network.semantic_attention"}

    def shapes(one):
        return {
            key: v.shape for key, v in one.named_parameters() if not any(key.startswith(name) for name in attention)
        }

    assert shapes(sarb) == shapes(by_maps)
    assert by_maps.network.semantic_attention.normalisation == "mean"
    assert method("sarb_sam", normalisation="mass").network.semantic_attention.normalisation == "mass"
    maps_BCHW = by_maps.attention(batch_of(random_labels(2)).frozen_BDHW)
    assert maps_BCHW.shape == (2, C, 3, 3) and (maps_BCHW >= 0).all()


def test_when_everything_is_known_blending_changes_nothing():
    labels_NC = random_labels(unknown=0)
    sarb = after_a_pass(method(labels_NC=labels_NC), labels_NC)
    losses = sarb.losses(batch_of(labels_NC), BLENDING)
    torch.testing.assert_close(losses["instance"], losses["partial_bce"])
    torch.testing.assert_close(losses["prototype"], losses["partial_bce"])
    scalars = sarb.scalars()
    assert scalars["instance_mixed_share"] == 0 == scalars["prototype_mixed_share"]


def test_blending_before_the_first_pass_finds_no_prototypes_and_mixes_none():
    sarb = method()
    losses = sarb.losses(batch_of(random_labels(6)), BLENDING)
    torch.testing.assert_close(losses["prototype"], losses["partial_bce"])


def test_another_generator_of_the_batch_gives_other_losses():
    labels_NC = random_labels()
    sarb = after_a_pass(method(labels_NC=labels_NC), labels_NC)

    def losses(seed):
        batch = replace(batch_of(labels_NC), generator=generator(seed))
        return [loss.item() for loss in sarb.losses(batch, BLENDING).values()]

    assert losses(seed=0) != losses(seed=1)


def test_attention_has_one_map_per_category():
    maps_BCHW = method().attention(batch_of(random_labels(2)).frozen_BDHW)
    torch.testing.assert_close(maps_BCHW.sum((2, 3)), torch.ones(2, C))
