import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.method import Progress
from tests.helpers.loss_samples import (
    C,
    N,
    assert_same,
    losses_of,
    method,
    random_labels,
    random_logits,
)

NAMES = ("an", "an_ls", "wan")


def slow(name, logits_BC, labels_BC):
    """Entry by entry, as the definitions read."""
    terms = {"known": torch.tensor(0.0), "assumed_absent": torch.tensor(0.0)}
    for n in range(len(labels_BC)):
        for c in range(C):
            p = torch.sigmoid(logits_BC[n, c].double())
            present, absent = -p.clamp(min=1e-5).log(), -(1 - p).clamp(min=1e-5).log()
            own, other = (present, absent) if labels_BC[n, c] == PRESENT else (absent, present)
            loss = 0.9 * own + 0.1 * other if name == "an_ls" else own
            if labels_BC[n, c] != UNKNOWN:
                terms["known"] = terms["known"] + loss
            else:
                terms["assumed_absent"] = terms["assumed_absent"] + (loss / (C - 1) if name == "wan" else loss)
    return {key: value / labels_BC.numel() for key, value in terms.items()}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31 - 1), name=st.sampled_from(NAMES))
def test_the_losses_are_those_of_the_loops_with_their_gradients(seed, name):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    assert_same(losses_of(logits_BC, labels_BC, method(name)), slow(name, logits_BC, labels_BC), logits_BC)


def test_a_hopeless_entry_costs_the_logarithm_of_the_floor_and_has_no_gradient():
    logits_BC = torch.full((1, C), -40.0, requires_grad=True)
    losses = losses_of(logits_BC, torch.full((1, C), PRESENT, dtype=torch.int8), method("an"))
    losses["known"].backward()
    assert losses["known"].item() == pytest.approx(11.5129, abs=1e-3) and not logits_BC.grad.any()


def test_an_unknown_label_counts_as_an_absent_one_and_only_wan_tells_them_apart():
    logits_BC, labels_BC = random_logits(), random_labels()
    absent_BC = torch.where(labels_BC == UNKNOWN, ABSENT, labels_BC)
    for name in NAMES:
        with_unknown, without = (sum(losses_of(logits_BC, y, method(name)).values()) for y in (labels_BC, absent_BC))
        assert torch.isclose(with_unknown, without) == (name != "wan")


def test_known_negatives_weigh_fully_in_wan():
    logits_BC, labels_BC = random_logits(), torch.full((N, C), ABSENT, dtype=torch.int8)
    wan, an = (losses_of(logits_BC, labels_BC, method(name))["known"] for name in ("wan", "an"))
    torch.testing.assert_close(wan, an)


def test_the_epoch_changes_nothing():
    logits_BC, labels_BC = random_logits(), random_labels()
    early = losses_of(logits_BC, labels_BC, method("an"), Progress(0, 20))
    assert_same(early, losses_of(logits_BC, labels_BC, method("an")), logits_BC)
