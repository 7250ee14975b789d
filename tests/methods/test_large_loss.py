import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.heads import PooledClassifier
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.loss_samples import (
    C,
    N,
    assert_same,
    batch_of,
    losses_of,
    method,
    random_labels,
    random_logits,
)

NAMES = ("ll_r", "ll_ct", "ll_cp")
BOOSTED = ("boostlu_ll_r", "boostlu_ll_ct", "boostlu_ll_cp", "boostlu_an", "cam_ll_r")
CODE = sys.modules[load_methods()["boostlu_ll_r"].cls.__module__]


def bce(logit, present):
    p = torch.sigmoid(logit.double())
    return -p.log() if present else -(1 - p).log()


def slow(name, logits_BC, labels_BC, num_changed):
    """Entry by entry: the unknown entries are ranked by their loss as absent ones, and the first are changed."""
    unknown = [(n, c) for n in range(len(labels_BC)) for c in range(C) if labels_BC[n, c] == UNKNOWN]
    ranked = sorted(unknown, key=lambda entry: -bce(logits_BC[entry], False).item())
    changed = set(ranked[:num_changed])
    terms = {"known": torch.tensor(0.0), "assumed_absent": torch.tensor(0.0)}
    if not name.endswith("ll_r"):
        terms["corrected"] = torch.tensor(0.0)
    for n in range(len(labels_BC)):
        for c in range(C):
            if labels_BC[n, c] != UNKNOWN:
                terms["known"] = terms["known"] + bce(logits_BC[n, c], labels_BC[n, c] == PRESENT)
            elif (n, c) not in changed:
                terms["assumed_absent"] = terms["assumed_absent"] + bce(logits_BC[n, c], False)
            elif not name.endswith("ll_r"):
                terms["corrected"] = terms["corrected"] + bce(logits_BC[n, c], True)
    return {key: value / labels_BC.numel() for key, value in terms.items()}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), name=st.sampled_from([*NAMES, "boostlu_ll_r"]), epoch=st.integers(0, 19))
def test_the_losses_are_those_of_the_loops_with_their_gradients(seed, name, epoch):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    rate = 0.021
    share = 0 if epoch == 0 else rate if name == "ll_cp" else rate * epoch
    theirs = slow(name, logits_BC, labels_BC, math.ceil(share * N * C))
    ours = losses_of(logits_BC, labels_BC, method(name, labels_BC, rate=rate), Progress(epoch, 20))
    assert_same(ours, theirs, logits_BC)


def changed_entries(name, epoch, epochs, entries=500, **overrides):
    """How many entries of an unlabelled batch change."""
    labels_BC = torch.full((entries // C, C), UNKNOWN, dtype=torch.int8)
    one = method(name, labels_BC, **overrides)
    losses_of(random_logits(len(labels_BC)), labels_BC, one, Progress(epoch, epochs))
    return round(float(one.scalars()["changed_share"]) * entries)


def test_the_number_of_changed_entries_grows_by_the_epoch_of_the_papers_20():
    assert [changed_entries("ll_r", epoch, 20) for epoch in (0, 1, 2, 9, 19)] == [0, 1, 2, 9, 19]
    assert [changed_entries("ll_ct", epoch, 10) for epoch in range(4)] == [0, 2, 4, 6]
    assert [changed_entries("ll_r", epoch, 40) for epoch in (0, 1, 2, 3, 4)] == [0, 0, 1, 2, 2]  # 1.5 is rounded up
    assert changed_entries("ll_r", 10, 20, rate=0.005) == 25
    assert changed_entries("ll_r", 2, 20, start=3) == 0


def test_relabelling_keeps_its_number_and_leaves_the_first_epoch_out():
    assert [changed_entries("ll_cp", epoch, 20) for epoch in (0, 1, 2, 19)] == [0, 1, 1, 1]
    assert [changed_entries("ll_cp", epoch, 10) for epoch in (0, 1, 9)] == [0, 1, 1]
    assert [changed_entries("ll_cp", epoch, 40) for epoch in (0, 1, 2)] == [0, 0, 1]
    assert changed_entries("ll_cp", 5, 20, rate=0.01) == 5


@pytest.mark.parametrize("name", NAMES)
def test_if_more_should_change_than_are_unknown_known_labels_stay_as_they_are(name):
    labels_BC = random_labels()
    labels_BC[labels_BC == UNKNOWN] = ABSENT
    labels_BC[0, :2] = UNKNOWN
    logits_BC, one = random_logits(), method(name, labels_BC, rate=1.0)
    ours = losses_of(logits_BC, labels_BC, one, Progress(19, 20))
    assert_same(ours, slow(name, logits_BC, labels_BC, num_changed=2), logits_BC)
    assert round(float(one.scalars()["changed_share"]) * N * C) == 2


def test_equal_losses_are_not_all_changed():
    labels_BC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    one = method("ll_ct", rate=0.01)
    losses_of(torch.zeros(N, C), labels_BC, one, Progress(10, 20))
    assert round(float(one.scalars()["changed_share"]) * N * C) == math.ceil(0.1 * N * C)


def test_relabelled_entries_stay_present_and_new_ones_join_them():
    labels_NC = random_labels()
    one, logits_BC = method("ll_cp", labels_NC, rate=1.5 / (N * C)), random_logits()
    order = sorted(
        ((n, c) for n in range(N) for c in range(C) if labels_NC[n, c] == UNKNOWN),
        key=lambda entry: -logits_BC[entry].item(),
    )
    for step in range(1, 4):
        ours = losses_of(logits_BC, labels_NC, one, Progress(1, 20, step, 4))
        pseudo_NC = torch.from_numpy(one.pseudo_labels_NC())
        present = {tuple(entry) for entry in ((pseudo_NC == PRESENT) & (labels_NC == UNKNOWN)).nonzero().tolist()}
        assert present == set(order[: 2 * step])
        assert_same(ours, slow("ll_cp", logits_BC, labels_NC, num_changed=2 * step), logits_BC)
    known_NC = labels_NC != UNKNOWN
    assert torch.equal(pseudo_NC[known_NC], labels_NC[known_NC])
    # What was relabelled stays so when the network has changed its mind.
    losses = losses_of(-logits_BC, labels_NC, one, Progress(0, 20))
    expected = sum(bce(-logits_BC[entry], True) for entry in order[:6]) / (N * C)
    torch.testing.assert_close(losses["corrected"], expected.float())


def test_relabelling_finds_the_images_by_their_row():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    one, batch = method("ll_cp", labels_NC, rate=0.1), batch_of(labels_NC[:2])
    batch.index_B[:] = torch.tensor([9, 4])
    logits_BC = torch.zeros(2, C)
    logits_BC[0, 3] = 5.0
    one.forward = lambda frozen_BDHW: logits_BC
    one.losses(batch, Progress(5, 20))
    assert (torch.from_numpy(one.pseudo_labels_NC()) == PRESENT).nonzero().tolist() == [[9, 3]]


def test_rejecting_labels_nothing():
    assert method("ll_r").pseudo_labels_NC() is None


def test_a_correction_is_noted_until_the_image_is_seen_again():
    labels_NC = torch.full((N, C), UNKNOWN, dtype=torch.int8)
    labels_NC[0, 0] = ABSENT
    one = method("ll_ct", labels_NC, rate=1 / (10 * N * C))
    for row, column in [(3, 1), (2, 3)]:
        logits_BC = torch.zeros(N, C)
        logits_BC[row, column], logits_BC[0, 0] = 5.0, 9.0
        losses_of(logits_BC, labels_NC, one, Progress(10, 20))
        pseudo_NC = torch.from_numpy(one.pseudo_labels_NC())
        assert (pseudo_NC == PRESENT).nonzero().tolist() == [[row, column]]
        assert (pseudo_NC == ABSENT).nonzero().tolist() == [[0, 0]]


# BoostLU: the numbers of the code published by the authors


@pytest.mark.parametrize(("part", "boost"), [("plain/", 1.0), ("boosted/", 5.0)])
def test_recorded_logits_loss_and_gradients_of_boosted_maps(part, boost):
    inputs, recorded = golden("boostlu"), golden("boostlu", part)
    weight_CD11, bias_C = inputs["weight_CD"][..., None, None].requires_grad_(), inputs["bias_C"].requires_grad_()
    features_BDHW = inputs["features_BDHW"].requires_grad_()
    maps_BCHW = torch.nn.functional.conv2d(features_BDHW, weight_CD11, bias_C)
    logits_BC = CODE.boosted_logits(maps_BCHW, boost)
    assert_recorded(logits_BC, recorded["logits_BC"])
    labels_BC = inputs["labels_BC"]
    loss = sum(losses_of(logits_BC, labels_BC, method("boostlu_an", labels_BC)).values())
    assert_recorded(loss, recorded["loss"])
    gradients = torch.autograd.grad(loss, (features_BDHW, weight_CD11, bias_C))
    assert_recorded(gradients[0], recorded["gradient_features_BDHW"])
    assert_recorded(gradients[1].flatten(1), recorded["gradient_weight_CD"])
    assert_recorded(gradients[2], recorded["gradient_bias_C"])


@pytest.mark.parametrize("part", ["partial/", "single_positive/"])
@pytest.mark.parametrize("name", ["boostlu_ll_r", "boostlu_ll_ct", "boostlu_ll_cp"])
def test_recorded_changes_losses_and_gradients(name, part):
    inputs, recorded = golden(name), golden(name, part)
    labels_BC = recorded["labels_BC"]
    for number, epoch in enumerate(inputs["epoch_E"].tolist()):
        one = method(name, labels_BC, rate=float(inputs["rate"]))
        logits_BC = inputs["logits_BC"].clone().requires_grad_()
        loss = sum(losses_of(logits_BC, labels_BC, one, Progress(epoch - 1, 20)).values())
        count = int(recorded["count_E"][number])
        assert round(float(one.scalars()["changed_share"]) * labels_BC.numel()) == count
        if name != "boostlu_ll_r":
            changed_BC = torch.from_numpy(one.pseudo_labels_NC()) != labels_BC
            assert torch.equal(changed_BC, recorded["changed_EBC"][number])
        assert_recorded(loss, recorded["loss_E"][number])
        assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient_EBC"][number])


# BoostLU: what follows from the equations


def boosted(name="boostlu_ll_r", **overrides):
    """A small method, and what its trained part gives for some images."""
    one = method(name, **overrides)
    frozen_BDHW = batch_of(random_labels(3)).frozen_BDHW
    return one, frozen_BDHW


def test_without_a_boost_the_logits_are_a_linear_classifiers_of_the_mean_position():
    one, frozen_BDHW = boosted("cam_ll_r")
    classifier = PooledClassifier(6, C)
    classifier.weight.data, classifier.bias.data = one.class_maps.weight.data.flatten(1), one.class_maps.bias.data
    torch.testing.assert_close(one(frozen_BDHW), classifier(one.trained(frozen_BDHW)), rtol=1e-5, atol=1e-6)


def test_positions_above_0_count_five_times_and_others_once():
    one, frozen_BDHW = boosted()
    maps_BCHW = one.class_maps(one.trained(frozen_BDHW))
    logits_BC = one(frozen_BDHW)
    for n in range(3):
        for c in range(C):
            values = maps_BCHW[n, c].flatten().tolist()
            mean = sum(5 * value if value > 0 else value for value in values) / len(values)
            assert logits_BC[n, c].item() == pytest.approx(mean, rel=1e-4, abs=1e-6)
    one.eval()
    torch.testing.assert_close(one(frozen_BDHW), logits_BC)  # at test time too


def test_the_gradient_of_a_position_is_the_boost_above_0_and_1_elsewhere():
    maps_BCHW = torch.tensor([[[[2.0, -1.0], [0.0, 0.5]]]], requires_grad=True)
    CODE.boosted_logits(maps_BCHW, 5.0).sum().backward()
    assert maps_BCHW.grad.flatten().tolist() == [5 / 4, 1 / 4, 1 / 4, 5 / 4]


def test_maps_without_a_value_above_0_are_not_boosted():
    maps_BCHW = -torch.rand(2, C, 3, 3)
    assert torch.equal(CODE.boosted_logits(maps_BCHW, 5.0), CODE.boosted_logits(maps_BCHW, 1.0))


def test_the_last_epoch_of_20_changes_as_many_entries_as_the_papers_last_of_10():
    for name, per_epoch in {"boostlu_ll_r": 0.005, "boostlu_ll_ct": 0.002}.items():
        share = changed_entries(name, 19, 20, entries=10_000) / 10_000
        assert share == pytest.approx(9 * per_epoch, rel=0.06)
    assert changed_entries("boostlu_ll_cp", 19, 20, entries=10_000) == 5
    assert changed_entries("boostlu_an", 19, 20, entries=10_000) == 0


def test_attention_is_what_is_above_0():
    one, frozen_BDHW = boosted()
    maps_BCHW = one.class_maps(one.trained(frozen_BDHW))
    assert torch.equal(one.attention(frozen_BDHW), maps_BCHW.clamp(min=0)) and (maps_BCHW < 0).any()


def test_the_class_activation_maps_can_learn_faster():
    one, _ = boosted(head_rate=10.0)
    body, head = one.parameter_groups()
    assert (body.lr_multiplier, head.lr_multiplier) == (1, 10)
    assert {id(p) for p in head.parameters} == {id(p) for p in one.class_maps.parameters()}
    assert {id(p) for p in body.parameters} == {id(p) for p in one.trained.parameters()}
