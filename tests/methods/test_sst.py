import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.layers.heads import both_present, support
from mlrpl_bench.models.layers.prototypes import mean_cosine
from mlrpl_bench.models.layers.semantic_transfer import fill
from mlrpl_bench.models.losses import asymmetric, partial_bce
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
from tests.helpers.places import GOLDEN
from tests.helpers.prototype_samples import history_of

CODE = sys.modules[load_methods()["sst"].cls.__module__]
GOLDEN_FILE = GOLDEN / "sst.npz"
TERMS = {"partial_bce", "cooccurrence", "contrastive"}
START, LATE = Progress(5, 20, 3, 10), Progress(15, 20, 3, 10)


# The numbers of the code published by the authors


@pytest.fixture
def golden():
    with np.load(GOLDEN_FILE) as file:
        numbers = {key: torch.from_numpy(file[key]) for key in file.files}
    return {**numbers, "labels_BC": numbers["target_BC"].to(torch.int8)}


def test_recorded_pseudo_labels_within_images(golden):
    supported_BC = support(golden["pair_logits_BP"], golden["labels_BC"])
    filled_BC = fill(golden["labels_BC"], supported_BC >= golden["intra_threshold"])
    assert torch.equal(filled_BC.float(), golden["intra_pseudo_BC"])
    assert (filled_BC != golden["labels_BC"]).any()


def test_recorded_pseudo_labels_across_images(golden):
    bank_CND = golden["bank_CND"]
    likeness_BC = mean_cosine(golden["features_BCD"], bank_CND, bank_CND.shape[1])
    filled_BC = fill(golden["labels_BC"], likeness_BC >= golden["inter_threshold"])
    assert torch.equal(filled_BC.float(), golden["inter_pseudo_BC"])
    assert (filled_BC != golden["labels_BC"]).any()


def test_recorded_cooccurrence_loss_and_gradient(golden):
    logits_BP = golden["pair_logits_BP"].requires_grad_()
    loss = asymmetric(logits_BP, both_present(golden["labels_BC"]), 1, 2, margin=0.05).mean()
    torch.testing.assert_close(loss, golden["cooccurrence_loss"].float(), rtol=1e-5, atol=0)
    (gradient_BP,) = torch.autograd.grad(loss, logits_BP)
    torch.testing.assert_close(gradient_BP, golden["cooccurrence_gradient_BP"], rtol=1e-5, atol=1e-8)


# The bank


def slow_push(bank, features_BCD, labels_BC, places):
    """Each category's list, newest first."""
    for n in range(len(labels_BC)):
        for c in range(C):
            if labels_BC[n, c] == PRESENT:
                bank[c] = [features_BCD[n, c].clone(), *bank[c]][:places]
    return bank


@pytest.mark.parametrize("places", [1, 2, 7])  # less and more than a batch has
def test_the_bank_holds_the_latest_known_positives_newest_first(places):
    bank_CND, expected = torch.zeros(C, places, 5), [[] for _ in range(C)]
    for seed in range(12):
        features_BCD, labels_BC = torch.randn(3, C, 5, generator=generator(seed)), random_labels(3, seed)
        bank_CND = CODE.push(bank_CND, features_BCD, labels_BC)
        expected = slow_push(expected, features_BCD, labels_BC, places)
        for c in range(C):
            held_ND = torch.zeros(places, 5)
            for place, feature_D in enumerate(expected[c]):
                held_ND[place] = feature_D
            assert torch.equal(bank_CND[c], held_ND)
    assert all(len(held) == places for held in expected)


def test_the_bank_is_filled_from_the_first_epoch_on_and_before_it_is_used():
    labels_BC = random_labels(6)
    sst = method("sst", bank=3)
    for progress in (Progress(0, 20, 0, 4), START):
        batch = batch_of(labels_BC, seed=progress.epoch)
        expected_CND = CODE.push(sst.bank_CND.clone(), features_of(sst, batch).detach(), labels_BC)
        sst.losses(batch, progress)
        torch.testing.assert_close(sst.bank_CND, expected_CND)
    assert not sst.bank_CND.requires_grad and "bank_CND" in sst.state_dict()


def features_of(sst, batch):
    return sst.network.features(sst.trained(batch.frozen_BDHW))


# Transferred labels


def slow_pseudo_labels(sst, batch, threshold):
    """Entry by entry, from the pair head's logits and the bank."""
    features_BCD, labels_BC = features_of(sst, batch), batch.labels_BC
    pair_logits_BP = sst.pairs(features_BCD)
    numbers = {pair: p for p, pair in enumerate((i, j) for i in range(C) for j in range(i + 1, C))}
    intra_BC, inter_BC = labels_BC.clone(), labels_BC.clone()
    for n in range(len(labels_BC)):
        known = [k for k in range(C) if labels_BC[n, k] == PRESENT]
        for c in range(C):
            if labels_BC[n, c] != UNKNOWN:
                continue
            together = [torch.sigmoid(pair_logits_BP[n, numbers[min(c, k), max(c, k)]]) for k in known]
            if sum(together) / max(1, len(known)) >= threshold:
                intra_BC[n, c] = PRESENT
            cosines = [torch.cosine_similarity(features_BCD[n, c], held_D, dim=0) for held_D in sst.bank_CND[c]]
            if sum(cosines) / len(cosines) >= threshold:
                inter_BC[n, c] = PRESENT
    return intra_BC, inter_BC


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), threshold=st.floats(0.125, 1.0, width=32))
def test_losses_and_shares_are_those_of_labels_filled_in_entry_by_entry(seed, threshold):
    labels_NC = random_labels(seed=seed)
    sst = method("sst", labels_NC, bank=4, first_threshold=threshold, last_threshold=0)
    batch = batch_of(labels_NC[:6], seed)
    losses = sst.losses(batch, START)
    intra_BC, inter_BC = slow_pseudo_labels(sst, batch, threshold)
    logits_BC = sst(batch.frozen_BDHW)
    torch.testing.assert_close(losses["intra"], partial_bce(logits_BC, intra_BC))
    torch.testing.assert_close(losses["inter"], partial_bce(logits_BC, inter_BC))
    fresh = method("sst", labels_NC, bank=4, first_threshold=threshold, last_threshold=0)
    fresh.losses(batch, Progress(5, 20, 0, 10))
    unknown = max(1, int((batch.labels_BC == UNKNOWN).sum()))
    for name, filled_BC in (("intra", intra_BC), ("inter", inter_BC)):
        expected = int((filled_BC != batch.labels_BC).sum()) / unknown
        assert float(fresh.scalars()[f"{name}_filled_share"]) == pytest.approx(expected)
    noted_NC = torch.from_numpy(fresh.pseudo_labels_NC())
    either_BC = (intra_BC == PRESENT) | (inter_BC == PRESENT)
    assert torch.equal(noted_NC[:6], torch.where(either_BC, PRESENT, labels_NC[:6]))
    assert torch.equal(noted_NC[6:], labels_NC[6:]), "images that were not seen"


def test_both_kinds_really_fill_in_labels_above_a_low_threshold():
    sst = method("sst", bank=1, first_threshold=0.3, last_threshold=0)
    losses = sst.losses(batch_of(random_labels()), START)
    assert losses["intra"] != losses["partial_bce"] != losses["inter"] != losses["intra"]


def test_evidence_exactly_at_the_threshold_fills_in():
    """At threshold 0 every unknown label has enough evidence within its image, even with no known positive."""
    sst = method("sst", first_threshold=0.0, last_threshold=0)
    labels_BC = torch.full((4, C), UNKNOWN, dtype=torch.int8)
    sst.losses(batch_of(labels_BC), Progress(5, 20, 0, 4))
    assert sst.scalars()["intra_filled_share"] == 1


def test_the_threshold_falls_from_the_start_on_down_to_its_floor():
    def thresholds(epochs, **options):
        sst, seen = method("sst", **options), []
        for epoch in range(epochs):
            losses = sst.losses(batch_of(random_labels(4)), Progress(epoch, epochs))
            assert set(losses) == (TERMS | {"intra", "inter"} if epoch >= epochs // 4 else TERMS)
            seen.append(float(sst.scalars()["threshold"]))
        return seen

    falling = [0.95 - 0.025 * k for k in range(8)]
    assert thresholds(20) == pytest.approx([1] * 5 + falling + [0.75] * 7)
    assert thresholds(4) == pytest.approx([1, 0.95, 0.825, 0.75])
    assert thresholds(4, last_threshold=0.5, threshold_step=0.01) == pytest.approx([1, 0.95, 0.9, 0.85])


def test_a_short_run_transfers_labels_from_its_second_quarter_on():
    history = history_of("sst", epochs=4)
    assert [row["epoch"] for row in history if {"loss.intra", "loss.inter"} <= set(row)] == [1, 2, 3]
    assert [row["scalar.threshold"] for row in history] == pytest.approx([1, 0.95, 0.825, 0.75])


def test_trains_everything_and_no_gradient_goes_through_the_evidence():
    sst = method("sst", first_threshold=0.3, last_threshold=0)
    losses = sst.losses(batch_of(random_labels(6)), START)
    pair_parameters = list(sst.pairs.parameters())
    transferred = torch.autograd.grad(
        losses["intra"] + losses["inter"], pair_parameters, retain_graph=True, allow_unused=True
    )
    assert all(gradient is None for gradient in transferred)
    sum(losses.values()).backward()
    assert all(value.grad.abs().max() > 0 for value in sst.parameters())


def test_when_everything_is_known_nothing_is_filled_in():
    labels_NC = random_labels(unknown=0)
    sst = method("sst", labels_NC, first_threshold=0.0, last_threshold=0)
    losses = sst.losses(batch_of(labels_NC), LATE)
    assert losses["intra"] == losses["partial_bce"] == losses["inter"]


def test_a_restored_method_continues_as_the_saved_one():
    sst, restored = (method("sst", bank=3, first_threshold=0.3, last_threshold=0) for _ in range(2))
    for seed in range(3):
        sst.losses(batch_of(random_labels(seed=seed), seed), LATE)
    restored.load_state_dict(sst.state_dict())
    ours, theirs = (one.losses(batch_of(random_labels()), LATE) for one in (sst, restored))
    assert {name: loss.item() for name, loss in ours.items()} == {name: loss.item() for name, loss in theirs.items()}
    assert len(sst.bank_CND) == C < N and sst.bank_CND.any()
