import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.contrast import contrast
from mlrpl_bench.models.layers.heads import both_present
from mlrpl_bench.models.layers.semantic_transfer import SemanticTransferMethod, fill, filled_share
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task

N, C = 6, 4


class Passes(SemanticTransferMethod):
    """Reports what it is given."""

    def transfer(self, features_BCD, logits_BC, pair_logits_BP, batch, progress):
        self.given = features_BCD, logits_BC, pair_logits_BP, batch, progress
        return {"transferred": logits_BC.sum()}


def random_labels(seed=0):
    return torch.randint(-1, 2, (N, C), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def method(**options):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=5, attention_width=4, pool=True)
    return Passes(
        backbone, Task(tuple("abcd"), random_labels(), 0.5, torch.randn(C, 7)), Passes.Hyperparameters(**options)
    )


def batch():
    maps_BDHW = torch.randn(N, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return Batch(maps_BDHW, maps_BDHW, random_labels(), torch.arange(N), torch.Generator().manual_seed(0))


def slow_pair_loss(pair_logits_BP, targets_BP):
    """gamma- = 2, gamma+ = 1, clip 0.05."""
    total = torch.zeros(())
    for logit, together in zip(pair_logits_BP.flatten(), targets_BP.flatten(), strict=True):
        p = torch.sigmoid(logit)
        if together:
            total = total - (1 - p) * torch.log(p)
        elif p > 0.05:
            total = total - (p - 0.05) ** 2 * torch.log(1 - (p - 0.05))
    return total / pair_logits_BP.numel()


@pytest.mark.parametrize(("progress", "warmth"), [(Progress(0, 20, 1, 4), 0.25), (Progress(7, 20, 1, 4), 1)])
def test_its_losses_are_the_sum_of_their_parts_with_their_weights(progress, warmth):
    one = method(cooccurrence=8.0, contrastive=0.5)
    losses = one.losses(batch(), progress)
    features_BCD, logits_BC, pair_logits_BP, *_ = one.given
    labels_BC = random_labels()
    torch.testing.assert_close(features_BCD, one.network.features(one.trained(batch().frozen_BDHW)))
    torch.testing.assert_close(logits_BC, one(batch().frozen_BDHW))
    torch.testing.assert_close(pair_logits_BP, one.pairs(features_BCD))
    expected = {
        "partial_bce": partial_bce(logits_BC, labels_BC),
        "cooccurrence": 8 * warmth * slow_pair_loss(pair_logits_BP, both_present(labels_BC)),
        **contrast(features_BCD, batch(), progress, 0.5, absent_pairs=True),
        "transferred": logits_BC.sum(),
    }
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)


def test_the_pair_head_is_no_part_of_the_scores():
    one, maps_BDHW = method().eval(), batch().frozen_BDHW
    before_BC = one(maps_BDHW)
    for value in one.pairs.parameters():
        value.data.zero_()
    assert torch.equal(one(maps_BDHW), before_BC)


@given(seed=st.integers(0, 2**31 - 1))
def test_only_probable_unknown_labels_are_filled_in(seed):
    labels_BC = random_labels(seed)
    probable_BC = torch.rand(N, C, generator=torch.Generator().manual_seed(seed)) < 0.5
    filled_BC = fill(labels_BC, probable_BC)
    assert filled_BC.dtype == labels_BC.dtype
    changed = 0
    for n in range(N):
        for c in range(C):
            fills = labels_BC[n, c] == UNKNOWN and probable_BC[n, c]
            assert filled_BC[n, c] == (PRESENT if fills else labels_BC[n, c])
            changed += int(fills)
    unknown = int((labels_BC == UNKNOWN).sum())
    assert float(filled_share(labels_BC, filled_BC)) == pytest.approx(changed / unknown if unknown else 0)


def test_nothing_is_filled_in_where_nothing_is_unknown():
    labels_BC = torch.full((2, C), ABSENT, dtype=torch.int8)
    filled_BC = fill(labels_BC, torch.ones(2, C, dtype=torch.bool))
    assert torch.equal(filled_BC, labels_BC) and filled_share(labels_BC, filled_BC) == 0
