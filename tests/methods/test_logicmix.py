import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers import union
from mlrpl_bench.models.losses import partial_asymmetric
from mlrpl_bench.models.method import AVERAGED, Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.loss_samples import (
    LATE,
    C,
    N,
    assert_same,
    batch_of,
    generator,
    method,
    random_labels,
    random_logits,
)

CODE = sys.modules[load_methods()["logicmix"].cls.__module__]
EARLY = Progress(epoch=0, epochs=20, step=0, steps_per_epoch=10)


def mixing_of(is_mixed_B, members_BK):
    """Members as the golden files have them, -1 for none."""
    return CODE.Mixing(is_mixed_B, members_BK.clamp(min=0), members_BK >= 0)


# Mixing


@pytest.mark.parametrize("part", ["two/", "three/"])
def test_labels_of_two_and_three_images_are_those_of_the_official_code(part):
    recorded = golden("logicmix", part)
    labels_MK = recorded["labels_MK"]
    members_MK = torch.arange(labels_MK.numel()).view_as(labels_MK)
    mixed_M1 = union(labels_MK.flatten()[:, None], members_MK, torch.ones_like(members_MK, dtype=torch.bool))
    assert torch.equal(mixed_M1[:, 0], recorded["mixed_M"])


@pytest.mark.parametrize(("name", "rows"), [("logicmix", "N"), ("logicmix_batch", "B")])
def test_mixtures_and_their_labels_are_those_of_the_official_code(name, rows):
    recorded = golden(name)
    mixing = mixing_of(recorded[f"is_mixed_{rows}"], recorded[f"members_{rows}3"])
    images_B3HW, rows_M = recorded[f"images_{rows}3HW"], mixing.is_mixed_B.nonzero().squeeze(1)
    mixed_B3HW = images_B3HW.index_copy(0, rows_M, CODE.mean_of_members(images_B3HW, mixing, rows_M))
    assert_recorded(mixed_B3HW, recorded[f"out/images_{rows}3HW"])
    labels_BC = CODE.mixed_labels(recorded[f"labels_{rows}C"], mixing)
    assert torch.equal(labels_BC, recorded[f"out/labels_{rows}C"]) and labels_BC.dtype == torch.int8


def draws(count=400, num_images=16, **options):
    wanted = {"probability": 0.5, "most": 3, **options}
    found = [CODE.draw(num_images, generator=generator(seed), **wanted) for seed in range(count)]
    return CODE.Mixing(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def test_half_of_the_images_are_mixed_evenly_with_one_or_two_of_the_batch_themselves_included():
    is_mixed_S, members_SK, counts_SK = draws()  # 6400 images
    assert abs(is_mixed_S.float().mean() - 0.5) < 0.02
    assert (members_SK[:, 0] == torch.arange(16).repeat(400)).all() and counts_SK[:, :2].all()
    assert abs(counts_SK[:, 2].float().mean() - 0.5) < 0.02
    for partner_S in (members_SK[:, 1], members_SK[:, 2]):
        counts = torch.bincount(partner_S, minlength=16).float()
        assert ((counts - 400).abs() < 90).all()  # 4.5 standard errors
        assert 300 < (partner_S == members_SK[:, 0]).sum() < 500
    independent = (members_SK[:, 1] == members_SK[:, 2]).float().mean()
    assert abs(independent - 1 / 16) < 0.02


def test_as_many_are_mixed_as_the_probability_says_and_of_as_many_images_as_are_allowed():
    assert not draws(20, probability=0.0).is_mixed_B.any() and draws(20, probability=1.0).is_mixed_B.all()
    assert not draws(20, most=2).counts_BK[:, 2:].any()
    assert draws(100, most=5).counts_BK.sum(dim=1).unique().tolist() == [2, 3, 4, 5]


def test_what_is_drawn_does_not_depend_on_what_is_mixed():
    states = []
    for probability in (0.0, 0.5, 1.0):
        one = generator(3)
        CODE.draw(8, probability, 3, one)
        states.append(one.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def test_an_image_of_one_member_or_mixed_with_itself_alone_is_itself():
    images_B3HW, labels_BC = torch.randn(3, 3, 4, 4, generator=generator()), random_labels(3)
    for members_B3 in ([[0, 0, -1], [1, 1, 1], [2, -1, -1]], [[0, -1, -1], [1, 1, -1], [2, 2, 2]]):
        mixing = mixing_of(torch.tensor([True] * 3), torch.tensor(members_B3))
        torch.testing.assert_close(CODE.mean_of_members(images_B3HW, mixing, torch.arange(3)), images_B3HW)
        assert torch.equal(CODE.mixed_labels(labels_BC, mixing), labels_BC)


def test_pixels_are_averaged_in_float32_under_autocast():
    images_B3HW = torch.rand(3, 3, 4, 4, generator=generator())
    mixing = mixing_of(torch.tensor([True]), torch.tensor([[0, 1, 2]]))
    with torch.autocast("cpu", torch.bfloat16):
        mean_13HW = CODE.mean_of_members(images_B3HW, mixing, torch.tensor([0]))
    torch.testing.assert_close(mean_13HW[0], images_B3HW.mean(dim=0))


# The loss


@pytest.mark.parametrize("loss", ["original", "mixed"])
@pytest.mark.parametrize("part", ["", "saturated/"])
def test_the_loss_of_each_entry_is_that_of_the_official_code(loss, part):
    recorded, constants = golden("partial_asl", part), golden("partial_asl")
    logits_BC = recorded["logits_BC"].float().requires_grad_()
    options = (constants[f"{loss}_{name}"].item() for name in ("focus_present", "focus_absent", "margin"))
    losses_BC = CODE.loss_by_entry(logits_BC, recorded["labels_BC"], *options)
    assert_recorded(losses_BC, recorded[f"of_{loss}_loss64_BC"])
    if part:
        (gradient_BC,) = torch.autograd.grad(losses_BC.sum(), logits_BC)
        assert_recorded(gradient_BC, recorded[f"saturated/of_{loss}_gradient64_BC".removeprefix(part)])


def with_mixing(monkeypatch, mixing):
    monkeypatch.setattr(CODE, "draw", lambda *_: mixing)


def test_the_loss_of_a_step_and_its_gradient_are_the_official_codes_but_for_the_mean(monkeypatch):
    recorded = golden("partial_asl")
    logits_BC, labels_BC = recorded["logits_BC"].requires_grad_(), recorded["labels_BC"]
    own_B3 = torch.arange(len(labels_BC))[:, None].repeat(1, 3)  # mixed with themselves: labels stay as they are
    with_mixing(monkeypatch, mixing_of(recorded["is_mixed_B"], own_B3))
    one = method("logicmix", labels_BC)
    one.forward = lambda frozen_BDHW: logits_BC
    loss = sum(one.losses(batch_of(labels_BC), LATE).values()) * (labels_BC != UNKNOWN).sum()
    assert_recorded(loss, recorded["loss64"])
    assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_BC"])


def slow_losses(one, batch, mixing, options):
    """Image by image and entry by entry; the logits are the network's of the images mixed here."""
    images, labels, mixed = [], [], mixing.is_mixed_B.tolist()
    for n in range(len(batch.labels_BC)):
        chosen = mixing.members_BK[n][mixing.counts_BK[n]].tolist() if mixed[n] else [n]
        images.append(sum(batch.images_B3HW[m] for m in chosen) / len(chosen))
        row = []
        for c in range(C):
            states = {int(batch.labels_BC[m, c]) for m in chosen}
            row.append(PRESENT if PRESENT in states else ABSENT if states == {ABSENT} else UNKNOWN)
        labels.append(row)
    logits_BC = one(torch.stack(images)).double()
    sums, known = {"original": 0.0 * logits_BC.sum(), "mixed": 0.0 * logits_BC.sum()}, 0
    for n, row in enumerate(labels):
        focus_present, focus_absent, margin = (options[3], 0, 0) if mixed[n] else (0, options[0], options[1])
        for c, state in enumerate(row):
            p = logits_BC[n, c].sigmoid()
            q = (1 - p + margin).clamp(max=1)
            known += state != UNKNOWN
            if state == PRESENT:
                sums["mixed" if mixed[n] else "original"] -= ((1 - p) ** focus_present).detach() * p.log()
            elif state == ABSENT:
                sums["mixed" if mixed[n] else "original"] -= ((1 - q) ** focus_absent).detach() * q.log()
    return {name: value / max(known, 1) for name, value in sums.items()}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), rows=st.sampled_from([1, 2, 5]))
def test_terms_and_gradients_are_those_of_loops_over_images_mixed_one_by_one(seed, rows):
    labels_BC = random_labels(rows, seed, unknown=0.4)
    one = method("logicmix", focus_absent=2.0, margin=0.1, mixed_focus_present=3.0)
    batch = batch_of(labels_BC, seed)
    mixing = CODE.draw(rows, 0.5, 3, generator(seed))
    ours = one.losses(batch, LATE)
    theirs = slow_losses(one, batch, mixing, (2.0, 0.1, None, 3.0))
    assert_same(ours, theirs, one.classifier.weight, one.classifier.bias)


def test_without_mixtures_it_is_the_asymmetric_loss_of_the_known_entries():
    labels_BC, logits_BC = random_labels(5), random_logits(5)
    one = method("logicmix", labels_BC, probability=0.0)
    one.forward = lambda frozen_BDHW: logits_BC
    losses = one.losses(batch_of(labels_BC), LATE)
    assert losses["mixed"] == 0
    torch.testing.assert_close(losses["original"], partial_asymmetric(logits_BC, labels_BC, 0.0, 4.0, 0.05))


def test_a_focus_of_0_weighs_exactly_1_where_the_score_is_certain():
    logits_BC = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    labels_BC = torch.tensor([[PRESENT, ABSENT]])
    losses_BC = CODE.loss_by_entry(logits_BC, labels_BC, 0.0, 0.0, 0.0)
    assert losses_BC.tolist() == [[200, 200]]
    assert torch.autograd.grad(losses_BC.sum(), logits_BC)[0].tolist() == [[-1, 1]]
    right_BC = CODE.loss_by_entry(-logits_BC, labels_BC, 0.0, 0.0, 0.0)
    assert right_BC.tolist() == [[0, 0]] and torch.autograd.grad(right_BC.sum(), logits_BC)[0].isfinite().all()


def test_mixtures_positives_are_weighed_down_and_their_negatives_are_not():
    logits_BC = torch.tensor([[3.0, -3.0]])
    labels_BC = torch.tensor([[PRESENT, ABSENT]])
    plain_BC = CODE.loss_by_entry(logits_BC, labels_BC, 0.0, 4.0, 0.05)
    mixed_BC = CODE.loss_by_entry(logits_BC, labels_BC, 4.0, 0.0, 0.0)
    assert mixed_BC[0, 0] < 1e-4 * plain_BC[0, 0] and plain_BC[0, 1] < 1e-4 * mixed_BC[0, 1]


def test_only_mixtures_go_through_the_frozen_part_and_all_through_the_trained_part_together():
    one, batch, frozen, trained = method("logicmix"), batch_of(random_labels(8)), [], []
    one.backbone.frozen.register_forward_hook(lambda module, inputs, output: frozen.append(output))
    one.trained.register_forward_pre_hook(lambda module, inputs: trained.append(inputs[0]))
    mixing = CODE.draw(8, 0.5, 3, generator())
    one.losses(batch, LATE)
    assert [len(maps) for maps in frozen] == [int(mixing.is_mixed_B.sum())] and 0 < len(frozen[0]) < 8
    (all_BDHW,) = trained
    assert torch.equal(all_BDHW[~mixing.is_mixed_B], batch.frozen_BDHW[~mixing.is_mixed_B])
    assert torch.equal(all_BDHW[mixing.is_mixed_B], frozen[0])


def test_a_category_that_is_unknown_throughout_stays_so_and_without_negatives_no_mixture_has_any():
    labels_BC = random_labels(8, unknown=0.3)
    labels_BC[:, 1] = UNKNOWN
    mixing = CODE.draw(8, 1.0, 3, generator(1))
    assert (CODE.mixed_labels(labels_BC, mixing)[:, 1] == UNKNOWN).all()
    positives_BC = torch.where(labels_BC == ABSENT, UNKNOWN, labels_BC)
    assert not (CODE.mixed_labels(positives_BC, mixing) == ABSENT).any()


def test_with_the_strong_view_strong_images_are_mixed_and_kept():
    assert method("logicmix").strong_view() is None
    one = method("logicmix", view="strong")
    assert one.strong_view() == StrongView(2, 9, "bilinear")
    batch, trained = batch_of(random_labels(8)), []
    one.trained.register_forward_pre_hook(lambda module, inputs: trained.append(inputs[0]))
    one.losses(batch, LATE)
    mirrored = replace(batch, images_B3HW=batch.images_B3HW.flip(3), frozen_BDHW=batch.frozen_BDHW.flip(3))
    plain = method("logicmix")
    plain.trained.register_forward_pre_hook(lambda module, inputs: trained.append(inputs[0]))
    plain.losses(replace(mirrored, generator=generator()), LATE)
    assert torch.equal(*trained)


def test_shares_of_mixtures_and_of_known_entries_are_reported():
    labels_BC = random_labels(8, unknown=0.6)
    one = method("logicmix", labels_BC)
    one.losses(batch_of(labels_BC), EARLY)
    mixing = CODE.draw(8, 0.5, 3, generator())
    known_B = (CODE.mixed_labels(labels_BC, mixing) != UNKNOWN).float().mean(dim=1)
    expected = (mixing.is_mixed_B.float().mean(), known_B[mixing.is_mixed_B].mean(), known_B[~mixing.is_mixed_B].mean())
    assert list(map(float, one.scalars().values())) == pytest.approx(list(map(float, expected)))


# The pseudo-labels


def test_what_is_filled_in_is_what_the_official_code_fills_in():
    recorded = golden("pseudo_labels")
    filled_NC = CODE.filled_in(recorded["logits_NC"], recorded["labels_NC"], 4.0)
    assert torch.equal(filled_NC, recorded["filled_NC"]) and filled_NC.dtype == torch.int8
    assert not (filled_NC != recorded["labels_NC"])[0, :2].any()  # logits at the thresholds


def after_a_pass(one, logits_NC, labels_NC):
    """The method after a pass in which the network gave these logits."""
    whole = batch_of(labels_NC)
    for rows in (slice(5), slice(5, None)):
        one.forward = lambda frozen_BDHW, rows=rows: logits_NC[rows]
        one.observe(replace(whole, labels_BC=labels_NC[rows], index_B=whole.index_B[rows]))
    one.end_pass(generator())
    del one.forward
    return one


def test_labels_are_filled_in_anew_at_every_pass_and_mixed():
    labels_NC, logits_NC = random_labels(unknown=0.7), random_logits(N, spread=6.0).detach()
    one = method("logicmix_pl", labels_NC)
    assert torch.equal(torch.from_numpy(one.pseudo_labels_NC()), labels_NC)
    batch = batch_of(labels_NC)
    assert torch.equal(one.labels_to_mix(batch), labels_NC)
    after_a_pass(one, logits_NC, labels_NC)
    filled_NC = CODE.filled_in(logits_NC, labels_NC, 4.0)
    assert torch.equal(one.labels_to_mix(batch), filled_NC) and not torch.equal(filled_NC, labels_NC)
    plain = method("logicmix", labels_NC)
    ours, theirs = one.losses(batch, LATE), plain.losses(batch_of(filled_NC), LATE)
    assert ours == theirs
    after_a_pass(one, torch.zeros(N, C), labels_NC)  # sure of nothing any more
    assert torch.equal(torch.from_numpy(one.pseudo_labels_NC()), labels_NC)
    assert one._observed == [], "what passes gathered is let go, or it would add up over the epochs"


def test_the_weights_are_averaged_over_the_same_part_of_training_as_in_the_code():
    coco_epochs = 1 / (1 - 0.999) * 128 / 82_081  # 128 images a step
    (recipe, without) = (load_methods()[name].cls.recipe for name in ("logicmix_pl", "logicmix"))
    assert recipe.ema == pytest.approx(coco_epochs / 60 * 20, abs=0.05) and recipe.scored == AVERAGED
    assert replace(recipe, ema=None) == without


def test_filling_in_changes_neither_the_batchs_labels_nor_the_tasks():
    labels_NC = random_labels(unknown=0.7)
    before_NC, batch = labels_NC.clone(), batch_of(labels_NC)
    one = after_a_pass(method("logicmix_pl", labels_NC), torch.full((N, C), 9.0), labels_NC)
    one.losses(batch, LATE)
    assert torch.equal(labels_NC, before_NC) and torch.equal(batch.labels_BC, before_NC)


@pytest.mark.parametrize(("epochs", "first"), [(20, 7), (10, 4), (60, 21)])
def test_a_pass_comes_before_every_epoch_from_a_third_on(epochs, first):
    one = method("logicmix_pl")
    assert [epoch for epoch in range(epochs) if one.passes(Progress(epoch, epochs))] == list(range(first, epochs))
    assert not any(method("logicmix").passes(Progress(epoch, epochs)) for epoch in range(epochs))


def test_the_published_row_is_that_of_both_ways():
    methods = load_methods()
    two_way, plain = methods["logicmix_2way"], methods["logicmix_pl"]
    assert (two_way.published, plain.published) == ("2WayAug-PL (LogicMix)", "")
    assert two_way.source_digest() == plain.source_digest() and two_way.cls.recipe == plain.cls.recipe
    assert two_way.hyperparameters() == replace(plain.hyperparameters(), view="strong")
    assert method("logicmix_2way").strong_view() == StrongView(interpolation="bilinear")
    assert method("logicmix_pl").strong_view() is None
