import pytest
import torch
from torch import nn

from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.losses import normalised_bce, partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

LABELS_NC = torch.tensor([[1, 0, -1], [0, 1, 0]], dtype=torch.int8)


def method(name="partial_bce", **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 5, 1), channels=5, feature_width=4, attention_width=4)
    entry = load_methods()[name]
    task = Task(("a", "b", "c"), LABELS_NC, 0.5, torch.randn(3, 6))
    return entry.cls(backbone, task, entry.hyperparameters(overrides))


def batch():
    maps_BDHW = torch.randn(2, 3, 4, 4)
    return Batch(maps_BDHW, maps_BDHW, LABELS_NC, torch.arange(2), torch.Generator())


def test_is_a_linear_layer_on_the_mean_position():
    plain, maps_BDHW = method(), torch.randn(2, 3, 4, 4)
    mean_BD = plain.trained(maps_BDHW).flatten(2).sum(-1) / 16
    expected = torch.stack([plain.classifier.weight @ mean_D + plain.classifier.bias for mean_D in mean_BD])
    torch.testing.assert_close(plain(maps_BDHW), expected)


def test_its_loss_is_partial_bce_of_its_logits():
    plain, one_batch = method(), batch()
    losses = plain.losses(one_batch, Progress(0, 20))
    assert set(losses) == {"partial_bce"}
    torch.testing.assert_close(losses["partial_bce"], partial_bce(plain(one_batch.frozen_BDHW), LABELS_NC))
    losses["partial_bce"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in plain.parameters())


@pytest.mark.parametrize("constants", [{}, {"slope": 1.0, "exponent": -1.0, "offset": 0.5}])
def test_the_normalised_one_hands_its_constants_on(constants):
    normalised, one_batch = method("partial_bce_norm", **constants), batch()
    losses = normalised.losses(one_batch, Progress(0, 20))
    assert set(losses) == {"normalised_bce"}
    expected = normalised_bce(normalised(one_batch.frozen_BDHW), LABELS_NC, **constants)
    torch.testing.assert_close(losses["normalised_bce"], expected)
    losses["normalised_bce"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in normalised.parameters())


def test_both_give_the_same_scores_from_the_same_seed():
    maps_BDHW = torch.randn(2, 3, 4, 4)
    assert torch.equal(method()(maps_BDHW), method("partial_bce_norm")(maps_BDHW))
