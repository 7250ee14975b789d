import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.losses import partial_asymmetric, partial_bce
from mlrpl_bench.models.method import Progress, Task
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.utils.errors import UserError
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.loss_samples import (
    LATE,
    C,
    batch_of,
    losses_of,
    method,
    random_labels,
    random_logits,
)

CODE = sys.modules[load_methods()["ml_decoder"].cls.__module__]
NAMES = ("ml_decoder", "ml_decoder_asl", "ml_decoder_ilrb")

LAYER = "decoder.layers.0."
THEIRS = {
    "embed.weight": "decoder.embed_standart.weight",
    "embed.bias": "decoder.embed_standart.bias",
    "queries_GE": "decoder.query_embed.weight",
    "before_attention.weight": LAYER + "norm1.weight",
    "before_attention.bias": LAYER + "norm1.bias",
    "block.attention.in_proj_weight": LAYER + "multihead_attn.in_proj_weight",
    "block.attention.in_proj_bias": LAYER + "multihead_attn.in_proj_bias",
    "block.attention.out_proj.weight": LAYER + "multihead_attn.out_proj.weight",
    "block.attention.out_proj.bias": LAYER + "multihead_attn.out_proj.bias",
    "block.after_attention.weight": LAYER + "norm2.weight",
    "block.after_attention.bias": LAYER + "norm2.bias",
    "block.widen.weight": LAYER + "linear1.weight",
    "block.widen.bias": LAYER + "linear1.bias",
    "block.narrow.weight": LAYER + "linear2.weight",
    "block.narrow.bias": LAYER + "linear2.bias",
    "block.after_feedforward.weight": LAYER + "norm3.weight",
    "block.after_feedforward.bias": LAYER + "norm3.bias",
    "classifiers_PE": "decoder.duplicate_pooling",
    "bias_C": "decoder.duplicate_pooling_bias",
}


def as_ours(theirs):
    """The classifiers lie as (G, E, F) there and as (G F, E) here."""
    return theirs.transpose(1, 2).flatten(0, 1) if theirs.ndim == 3 and len(theirs) > 1 else theirs


# The numbers of the code published by the authors


@pytest.mark.parametrize(("name", "queries"), [("ml_decoder", 100), ("ml_decoder_groups", 3)])
def test_recorded_logits_and_gradients(name, queries):
    recorded = golden(name)
    maps_BDHW = recorded["maps_BDHW"].requires_grad_()
    num_categories, heads = recorded["logits_BC"].shape[1], int(recorded["heads"])
    head = CODE.QueryDecoder(maps_BDHW.shape[1], num_categories, queries, 16, 24, heads, 0.1)
    head.load_state_dict({ours: as_ours(recorded[f"weight/{theirs}"]) for ours, theirs in THEIRS.items()})
    assert (len(head.queries_GE), head.shared_by) == (int(recorded["groups"]), int(recorded["factor"]))
    logits_BC = head.eval()(maps_BDHW)
    assert_recorded(logits_BC, recorded["logits_BC"])
    (logits_BC * recorded["direction_BC"]).sum().backward()
    assert_recorded(maps_BDHW.grad, recorded["gradient_maps_BDHW"])
    for ours, value in head.named_parameters():
        assert_recorded(value.grad, as_ours(recorded[f"gradient/{THEIRS[ours]}"]))


# What follows from the equations


def head_of(num_categories=5, queries=100, seed=0):
    torch.manual_seed(seed)
    return CODE.QueryDecoder(6, num_categories, queries, 16, 24, 4, 0.1)


def layer_norm(x, module):
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * module.weight + module.bias


def slow_logit(head, maps_DHW, category):
    """One category of one image: its query's attention head by head, position by position."""
    block, width, heads = head.block, 16, 4
    position_PE = [torch.relu(head.embed(x_D)) for x_D in maps_DHW.flatten(1).T]
    weight_3EE, bias_3E = (value.chunk(3) for value in (block.attention.in_proj_weight, block.attention.in_proj_bias))
    state_E = layer_norm(2 * head.queries_GE[category // head.shared_by], head.before_attention)
    query_E = weight_3EE[0] @ state_E + bias_3E[0]
    key_PE = [weight_3EE[1] @ position_E + bias_3E[1] for position_E in position_PE]
    value_PE = [weight_3EE[2] @ position_E + bias_3E[2] for position_E in position_PE]
    parts = []
    for h in range(heads):
        own = slice(h * width // heads, (h + 1) * width // heads)
        scores = [(query_E[own] @ key_E[own] / math.sqrt(width / heads)).exp() for key_E in key_PE]
        parts.append(sum(s * value_E[own] for s, value_E in zip(scores, value_PE, strict=True)) / sum(scores))
    attended_E = block.attention.out_proj(torch.cat(parts))
    state_E = layer_norm(state_E + attended_E, block.after_attention)
    state_E = layer_norm(state_E + block.narrow(torch.relu(block.widen(state_E))), block.after_feedforward)
    return head.classifiers_PE[category] @ state_E + head.bias_C[category]


@pytest.mark.parametrize("queries", [100, 2])
def test_logits_and_gradients_are_those_of_one_category_and_position_after_the_other(queries):
    head, maps_BDHW = head_of(queries=queries).eval(), torch.randn(2, 6, 2, 3, requires_grad=True)
    ours = head(maps_BDHW)
    theirs = torch.stack([torch.stack([slow_logit(head, maps_DHW, c) for c in range(5)]) for maps_DHW in maps_BDHW])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    wanted = [maps_BDHW, *head.parameters()]
    gradients = [torch.autograd.grad(x_BC.square().sum(), wanted) for x_BC in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-4)


def test_the_order_of_positions_changes_nothing():
    head, maps_BDHW = head_of().eval(), torch.randn(2, 6, 3, 4)
    order = torch.randperm(12)
    shuffled_BDHW = maps_BDHW.flatten(2)[:, :, order].view_as(maps_BDHW)
    torch.testing.assert_close(head(shuffled_BDHW), head(maps_BDHW), rtol=1e-5, atol=1e-5)


def test_the_queries_are_not_trained_and_there_are_at_most_a_hundred():
    one = method("ml_decoder")
    assert "head.queries_GE" not in dict(one.named_parameters()) and "head.queries_GE" in one.state_dict()
    assert [len(head_of(number).queries_GE) for number in (80, 100, 101, 200)] == [80, 100, 100, 100]
    assert [head_of(number).shared_by for number in (80, 100, 101, 200)] == [1, 1, 2, 2]
    assert head_of(200, seed=3).queries_GE.std().item() == pytest.approx(1, abs=0.05)


def test_classifiers_start_with_the_deviation_of_the_code():
    head = CODE.QueryDecoder(6, 200, 100, 768, 24, 8, 0.1)
    assert head.classifiers_PE.std().item() == pytest.approx((2 / (2 * (768 + 100))) ** 0.5, rel=0.02)


def test_dropout_differs_between_images_and_is_off_in_testing():
    head, maps_DHW = head_of(), torch.randn(6, 2, 3)
    logits_BC = head(torch.stack([maps_DHW, maps_DHW]))
    assert not torch.allclose(logits_BC[0], logits_BC[1])
    tested_BC = head.eval()(torch.stack([maps_DHW, maps_DHW]))
    torch.testing.assert_close(tested_BC[0], tested_BC[1])


def test_attention_is_that_of_the_categorys_query_and_adds_up_to_1():
    head, maps_BDHW = head_of(queries=2).eval(), torch.randn(2, 6, 3, 4)
    maps_BCHW = head.attention(maps_BDHW)
    assert maps_BCHW.shape == (2, 5, 3, 4) and (maps_BCHW >= 0).all()
    torch.testing.assert_close(maps_BCHW.sum(dim=(2, 3)), torch.ones(2, 5))
    alike = [[torch.equal(maps_BCHW[:, c], maps_BCHW[:, d]) for d in range(5)] for c in range(5)]
    assert alike == [[c // 3 == d // 3 for d in range(5)] for c in range(5)]


# The method


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_losses_read_the_known_labels_alone(seed):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    plain = losses_of(logits_BC, labels_BC, method("ml_decoder"))
    assert plain == {"partial_bce": partial_bce(logits_BC, labels_BC)}
    asymmetric = losses_of(logits_BC, labels_BC, method("ml_decoder_asl"))
    assert asymmetric == {"asymmetric": partial_asymmetric(logits_BC, labels_BC, 0, 4, 0.05)}
    (gradient_BC,) = torch.autograd.grad(sum({**plain, **asymmetric}.values()), logits_BC)
    assert not gradient_BC[labels_BC == UNKNOWN].any()


def test_the_head_learns_ten_times_as_fast():
    one = method("ml_decoder")
    body, head = one.parameter_groups()
    assert (body.lr_multiplier, head.lr_multiplier) == (1, 10)
    assert {id(p) for p in head.parameters} == {id(p) for p in one.head.parameters()}


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(UserError, match="8 heads do not divide a width of 20; choose another width"):
        method("ml_decoder", width=20)


def test_its_width_follows_the_backbones():
    entry = load_methods()["ml_decoder"]
    backbone = Backbone(nn.Identity(), nn.Identity(), channels=2048)
    task = Task(tuple("abcd"), random_labels(), 0.5, torch.randn(C, 7))
    head = entry.cls(backbone, task, entry.hyperparameters()).head
    assert (head.embed.out_features, head.block.widen.out_features) == (768, 2048)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_alone_has_the_scores_that_it_has_in_a_batch(name):
    one, frozen_BDHW = method(name).eval(), batch_of(random_labels(4)).frozen_BDHW
    alone_BC = torch.cat([one(frozen_BDHW[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(one(frozen_BDHW), alone_BC, rtol=1e-4, atol=1e-5)


# Blended features


@pytest.mark.parametrize("queries", [100, 3])
def test_features_and_their_classifiers_give_the_heads_logits(queries):
    head, maps_BDHW = head_of(queries=queries).eval(), torch.randn(2, 6, 3, 4)
    features_BCE = head.features(maps_BDHW)
    assert features_BCE.shape[:2] == (2, 5)
    torch.testing.assert_close(head.classify(features_BCE), head(maps_BDHW), rtol=1e-5, atol=1e-5)


def blended_and_plain(labels_BC, progress, alpha=None, **overrides):
    blended, plain = method("ml_decoder_ilrb", labels_BC, **overrides).eval(), method("ml_decoder", labels_BC).eval()
    blended.load_state_dict(plain.state_dict(), strict=False)
    if alpha is not None:
        blended.blending.alpha.data.fill_(alpha)
    batch = batch_of(labels_BC)
    return blended, batch, blended.losses(batch, progress), plain.losses(batch, progress)


def test_before_its_start_and_where_all_of_a_feature_is_kept_it_is_ml_decoder():
    labels_BC = random_labels(8)
    *_, early, plain = blended_and_plain(labels_BC, Progress(epoch=4, epochs=20))
    torch.testing.assert_close(early, plain, rtol=1e-5, atol=1e-5)
    *_, kept, _ = blended_and_plain(labels_BC, LATE, alpha=1.0)
    torch.testing.assert_close(kept["instance"], plain["partial_bce"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kept["partial_bce"], plain["partial_bce"], rtol=1e-5, atol=1e-5)


def test_an_unknown_label_is_supplied_by_the_mirrored_image_that_shows_the_category():
    labels_BC = random_labels(8)
    one, batch, losses, _ = blended_and_plain(labels_BC, LATE, alpha=0.7)
    features_BCE = one.head.features(one.trained(batch.frozen_BDHW))
    terms = []
    for image, category in [(b, c) for b in range(8) for c in range(C)]:
        own, other = labels_BC[image, category], labels_BC[7 - image, category]
        feature_E, target = features_BCE[image, category], float(own == PRESENT)
        if own == UNKNOWN:
            if other != PRESENT:
                continue
            feature_E, target = 0.7 * feature_E + 0.3 * features_BCE[7 - image, category], 0.3
        probability = torch.sigmoid(one.head.classify(feature_E.expand(1, C, -1))[0, category])
        terms.append(-target * probability.log() - (1 - target) * (1 - probability).log())
    torch.testing.assert_close(losses["instance"], sum(terms) / len(terms), rtol=1e-4, atol=1e-5)


def test_alpha_learns_at_the_recipes_rate():
    one = method("ml_decoder_ilrb")
    body, head = one.parameter_groups()
    assert (body.lr_multiplier, head.lr_multiplier) == (1, 10)
    assert one.blending.alpha is body.parameters[-1] and not any(p is one.blending.alpha for p in head.parameters)
    fixed = method("ml_decoder_ilrb", learned=False)
    assert not fixed.blending.alpha.requires_grad and float(fixed.blending.alpha) == 0.5
    assert not any(p is fixed.blending.alpha for group in fixed.parameter_groups() for p in group.parameters)
