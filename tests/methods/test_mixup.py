import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

C, D = 4, 5
METHODS = load_methods()
CODE = sys.modules[METHODS["ip_mixup"].cls.__module__]
MIXING = Progress(epoch=5, epochs=20, step=0, steps_per_epoch=10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(rows=6, seed=0, unknown=0.5):
    draws = torch.rand(rows, C, generator=generator(seed))
    return torch.where(draws < unknown, UNKNOWN, torch.where(draws < (1 + unknown) / 2, PRESENT, ABSENT)).to(torch.int8)


def method(name="ip_mixup", labels_NC=None, **overrides):
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()).eval().requires_grad_(False)
    backbone = Backbone(frozen, nn.Conv2d(3, 6, 1), channels=6, feature_width=D, attention_width=4, pool=True)
    labels_NC = random_labels(12) if labels_NC is None else labels_NC
    task = Task(tuple("abcd"), labels_NC, 0.5, torch.randn(C, 7, generator=generator()))
    return METHODS[name].cls(backbone, task, METHODS[name].hyperparameters(overrides))


def batch_of(mixup, labels_BC, seed=0):
    images_B3HW = torch.randn(len(labels_BC), 3, 6, 6, generator=generator(seed))
    frozen_BDHW = mixup.backbone.frozen(images_B3HW)
    return Batch(images_B3HW, frozen_BDHW, labels_BC, torch.arange(len(labels_BC)), generator(seed))


# Labels, against loops


def slow_mixed_loss(logits_BC, labels_BC, share, rule):
    """Entry by entry; every rule in its own words."""

    def term(n, c, probability):
        x = logits_BC[n, c]
        return -probability * torch.sigmoid(x).log() - (1 - probability) * torch.sigmoid(-x).log()

    own, partner, single = [], [], []
    for n in range(len(labels_BC)):
        for c in range(C):
            y, z = int(labels_BC[n, c]), int(labels_BC[len(labels_BC) - 1 - n, c])
            if y != UNKNOWN:
                own.append(term(n, c, float(y == PRESENT)))
            if z != UNKNOWN:
                partner.append(term(n, c, float(z == PRESENT)))
            if rule == "signed":
                t = share * y + (1 - share) * z
                if t != 0:
                    single.append(term(n, c, t if t > 0 else 1 + t))
            elif rule == "both_known" and UNKNOWN not in (y, z):
                single.append(term(n, c, share * (y == PRESENT) + (1 - share) * (z == PRESENT)))
            elif rule == "either" and (PRESENT in (y, z) or (y, z) == (ABSENT, ABSENT)):
                single.append(term(n, c, float(PRESENT in (y, z))))

    def mean(losses):
        return sum(losses) / len(losses) if losses else logits_BC.sum() * 0

    return share * mean(own) + (1 - share) * mean(partner) if rule == "loss" else mean(single)


@given(
    seed=st.integers(0, 2**31 - 1),
    rule=st.sampled_from(CODE.LABEL_RULES),
    rows=st.integers(1, 5),
    share=st.sampled_from([0.5, 0.7, 0.93, 1.0]),
)
def test_the_mixed_loss_equals_the_loops_in_value_and_both_gradients(seed, rule, rows, share):
    labels_BC = random_labels(rows, seed, unknown=0.3)
    logits_BC = torch.randn(rows, C, generator=generator(seed), requires_grad=True)
    inputs = [logits_BC, torch.tensor(share, requires_grad=True)]
    losses = [function(inputs[0], labels_BC, inputs[1], rule) for function in (CODE.mixed_loss, slow_mixed_loss)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    if share == 1.0:  # at the corner a target of exactly 0 or 1 has one-sided derivatives
        inputs = inputs[:1]
    gradients = [torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True) for loss in losses]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "known_pair", "one_known"), [("signed", 0.4, 0.7), ("both_known", 0.7, None), ("either", 1.0, 1.0)]
)
def test_what_the_rules_make_of_present_with_absent_and_with_unknown(rule, known_pair, one_known):
    """Read from the gradient at logit 0 of the first image: 1/2 - target, over the number of known entries."""
    for partner, target in ((ABSENT, known_pair), (UNKNOWN, one_known)):
        labels_BC = torch.tensor([[PRESENT], [partner]])
        logits_BC = torch.zeros(2, 1, requires_grad=True)
        CODE.mixed_loss(logits_BC, labels_BC, torch.tensor(0.7), rule).backward()
        expected = 0.0 if target is None else (0.5 - target) / 2
        torch.testing.assert_close(logits_BC.grad[0, 0], torch.tensor(expected))


def test_where_both_labels_are_known_mixing_losses_is_mixing_labels():
    labels_BC, logits_BC, share = random_labels(unknown=0), torch.randn(6, C), torch.tensor(0.8)
    loss, probability = (CODE.mixed_loss(logits_BC, labels_BC, share, rule) for rule in ("loss", "both_known"))
    torch.testing.assert_close(loss, probability)


def test_opposite_labels_cancel_when_signed_at_one_half():
    labels_BC = torch.tensor([[PRESENT], [ABSENT]])
    assert CODE.mixed_loss(torch.randn(2, 1), labels_BC, torch.tensor(0.5), "signed") == 0


# The coefficient


def shares_of(mixup, count=400):
    batch = batch_of(mixup, random_labels())
    return torch.stack([mixup._share(replace(batch, generator=generator(seed))).detach() for seed in range(count)])


def test_by_default_the_larger_share_is_even_over_its_range():
    shares_S = shares_of(method())
    assert shares_S.min() >= 0.5 and shares_S.max() <= 1
    assert stats.kstest(shares_S.numpy(), stats.uniform(0.5, 0.5).cdf).statistic < 0.08


def test_a_fixed_share_is_the_one_given():
    assert shares_of(method(law="fixed", share=0.6), 3).tolist() == pytest.approx([0.6] * 3)


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
def test_a_learned_share_has_a_gradient_and_stays_in_range(name):
    mixup = method(name, law="learned")
    sum(mixup.losses(batch_of(mixup, random_labels()), MIXING).values()).backward()
    assert mixup.share.grad != 0
    for pushed, kept in ((1.2, 1.0), (0.3, 0.5), (0.8, 0.8)):
        mixup.share.data.fill_(pushed)
        mixup.after_step()
        assert mixup.share.item() == pytest.approx(kept)


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
def test_a_learned_share_learns_through_the_mixture_too(name):
    """Signed labels that are all alike keep their targets: what is left is the mixture's own path."""
    mixup = method(name, law="learned", labels="signed")
    mixup.losses(batch_of(mixup, torch.full((6, C), ABSENT, dtype=torch.int8)), MIXING)["mixup"].backward()
    assert mixup.share.grad.abs() > 1e-6


def test_the_loss_is_symmetric_about_one_half():
    """The reason why a learned share does not start there."""
    losses = []
    for share in (0.3, 0.7):
        mixup = method(law="fixed", share=share)
        losses.append(mixup.losses(batch_of(mixup, random_labels()), MIXING)["mixup"])
    torch.testing.assert_close(*losses)


# The whole method


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
@pytest.mark.parametrize("rule", CODE.LABEL_RULES)
def test_the_losses_are_those_of_images_mixed_one_by_one(name, rule):
    mixup = method(name, law="fixed", share=0.8, labels=rule)
    batch = batch_of(mixup, random_labels(5))
    losses = mixup.losses(batch, MIXING)

    def blended(values):
        return torch.stack([0.8 * values[n] + 0.2 * values[len(values) - 1 - n] for n in range(len(values))])

    if name == "ip_mixup":
        mixed_BC = mixup(mixup.backbone.frozen(blended(batch.images_B3HW)))
    else:
        network = mixup.network
        maps_BDHW = blended(network.trunk(mixup.trained(batch.frozen_BDHW)))
        mixed_BC = network.head(network.decoupling(maps_BDHW, network.words_CE))
    expected = {
        "partial_bce": partial_bce(mixup(batch.frozen_BDHW), batch.labels_BC),
        "mixup": slow_mixed_loss(mixed_BC, batch.labels_BC, 0.8, rule),
    }
    assert set(losses) == set(expected)
    for term, loss in losses.items():
        torch.testing.assert_close(loss, expected[term], rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(sum(terms.values()), list(mixup.parameters())) for terms in (losses, expected)]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_images_and_features_are_mixed_in_different_places():
    losses = []
    for name in ("ip_mixup", "fm_mixup"):
        mixup = method(name, law="fixed", share=0.7)
        losses.append(mixup.losses(batch_of(mixup, random_labels()), MIXING))
    torch.testing.assert_close(losses[0]["partial_bce"], losses[1]["partial_bce"])
    assert abs(losses[0]["mixup"] - losses[1]["mixup"]) > 1e-5


@pytest.mark.parametrize("learned", [True, False])
def test_the_frozen_part_builds_no_graph_unless_the_share_is_learned(learned):
    mixup, seen = method(law="learned" if learned else "beta"), []
    mixup.backbone.frozen.register_forward_hook(lambda *_: seen.append(_[2].requires_grad))
    batch = batch_of(mixup, random_labels())
    mixup.losses(batch, MIXING)
    assert seen == [False, learned]  # the first was to make the batch


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
def test_before_the_start_it_is_ssgrl(name):
    for epochs, start in ((20, 5), (8, 2)):
        terms = []
        for epoch in range(epochs):
            mixup = method(name)
            terms.append(set(mixup.losses(batch_of(mixup, random_labels()), Progress(epoch, epochs))))
        assert terms == [{"partial_bce"}] * start + [{"partial_bce", "mixup"}] * (epochs - start)
    mixup, ssgrl = method(name), method("ssgrl")
    batch = batch_of(mixup, random_labels())
    ours, theirs = (one.losses(batch, Progress(0, 20))["partial_bce"] for one in (mixup, ssgrl))
    assert ours.item() == theirs.item()


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
def test_everything_trains(name):
    mixup = method(name)
    mixup.losses(batch_of(mixup, random_labels()), MIXING)["mixup"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in mixup.parameters())
    assert all(parameter.grad is None for parameter in mixup.backbone.frozen.parameters())


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
def test_another_generator_of_the_batch_gives_other_losses(name):
    mixup = method(name)

    def losses(seed):
        batch = replace(batch_of(mixup, random_labels()), generator=generator(seed))
        return [loss.item() for loss in mixup.losses(batch, MIXING).values()]

    assert losses(seed=0) != losses(seed=1)


def test_the_reported_share_is_the_mean_over_the_epoch_so_far():
    mixup, shares = method(), []
    assert float(mixup.scalars()["partner_share"]) == 0  # nothing mixed yet
    for step in range(3):
        batch = replace(batch_of(mixup, random_labels()), generator=generator(step))
        shares.append(1 - float(mixup._share(replace(batch, generator=generator(step)))))
        mixup.losses(batch, replace(MIXING, step=step))
        assert float(mixup.scalars()["partner_share"]) == pytest.approx(sum(shares) / len(shares))
    mixup.losses(replace(batch, generator=generator(0)), replace(MIXING, epoch=6))
    assert float(mixup.scalars()["partner_share"]) == pytest.approx(shares[0])


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
@pytest.mark.parametrize("rule", CODE.LABEL_RULES)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_hard_batches_in_bfloat16_give_finite_losses_and_gradients(name, rule, rows, known):
    labels_NC = random_labels(12)
    labels_NC[:, 1] = UNKNOWN  # a category without known positives
    mixup = method(name, labels_NC, labels=rule)
    labels_BC = labels_NC[:rows] if known else torch.full((rows, C), UNKNOWN, dtype=torch.int8)
    batch = batch_of(mixup, labels_BC)
    with torch.autocast("cpu", torch.bfloat16):
        losses = mixup.losses(batch, MIXING)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixup.parameters())


def test_attention_has_one_map_per_category():
    mixup = method()
    maps_BCHW = mixup.attention(batch_of(mixup, random_labels(2)).frozen_BDHW)
    torch.testing.assert_close(maps_BCHW.sum((2, 3)), torch.ones(2, C))
