import pytest
import torch
from torch import nn

from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

LABELS_NC = torch.tensor([[1, 1, -1, 0], [0, 1, 1, 0], [1, -1, 0, 0]], dtype=torch.int8)  # the last has no positive


def method(name="ssgrl", **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=5, attention_width=4, pool=True)
    entry = load_methods()[name]
    task = Task(("a", "b", "c", "d"), LABELS_NC, 0.5, torch.randn(4, 7))
    return entry.cls(backbone, task, entry.hyperparameters(overrides))


def batch():
    maps_BDHW = torch.randn(3, 3, 6, 6)
    return Batch(maps_BDHW, maps_BDHW, LABELS_NC, torch.arange(3), torch.Generator())


@pytest.mark.parametrize("tied_reset", [False, True])
def test_its_loss_is_partial_bce_of_its_logits_and_trains_everything(tied_reset):
    ssgrl, one_batch = method(tied_reset=tied_reset), batch()
    assert ssgrl.network.head.graph.tied_reset == tied_reset
    losses = ssgrl.losses(one_batch, Progress(0, 20))
    torch.testing.assert_close(losses["partial_bce"], partial_bce(ssgrl(one_batch.frozen_BDHW), LABELS_NC))
    losses["partial_bce"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in ssgrl.parameters())


def test_the_graph_is_counted_on_the_known_labels():
    torch.testing.assert_close(method().network.head.adjacency_CC, cooccurrence(LABELS_NC))
    unbiased = method(graph_estimator="unbiased").network.head.adjacency_CC
    torch.testing.assert_close(unbiased, cooccurrence(LABELS_NC, "unbiased"))
    assert not torch.equal(unbiased, cooccurrence(LABELS_NC))


def test_attention_is_where_the_pooled_map_is_looked_at():
    maps_BCHW = method().attention(batch().frozen_BDHW)
    assert maps_BCHW.shape == (3, 4, 3, 3)
    torch.testing.assert_close(maps_BCHW.sum((2, 3)), torch.ones(3, 4))


def test_known_labels_count_three_times_from_the_start_of_blending_on():
    for epochs, start in ((20, 5), (8, 2)):
        ssgrl, one_batch = method("ssgrl_x3"), batch()
        for epoch in range(epochs):
            losses = ssgrl.losses(one_batch, Progress(epoch, epochs))
            expected = partial_bce(ssgrl(one_batch.frozen_BDHW), LABELS_NC)
            assert set(losses) == ({"partial_bce", "repeated"} if epoch >= start else {"partial_bce"})
            torch.testing.assert_close(losses["partial_bce"], expected)
            torch.testing.assert_close(sum(losses.values()), expected * (3 if epoch >= start else 1))


def test_three_times_the_loss_is_three_times_the_gradient():
    one_batch, gradients = batch(), []
    for name in ("ssgrl", "ssgrl_x3"):
        ssgrl = method(name)
        sum(ssgrl.losses(one_batch, Progress(5, 20)).values()).backward()
        gradients.append([parameter.grad for parameter in ssgrl.parameters()])
    for once, thrice in zip(*gradients, strict=True):
        torch.testing.assert_close(3 * once, thrice)


def test_plain_ssgrl_has_one_term_for_ever():
    ssgrl, one_batch = method(), batch()
    assert all(set(ssgrl.losses(one_batch, Progress(epoch, 20))) == {"partial_bce"} for epoch in range(20))
