import torch
from torch import nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.losses import partial_bce
from mlrpl_bench.method import Batch, Progress, Task
from mlrpl_bench.registry import load_methods

LABELS_NC = torch.tensor([[1, 0, -1], [0, 1, -1]], dtype=torch.int8)


def method():
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 5, 1), channels=5, feature_width=4, attention_width=4)
    entry = load_methods()["partial_bce"]
    return entry.cls(backbone, Task(("a", "b", "c"), LABELS_NC, 0.5, torch.randn(3, 6)), entry.hyperparameters())


def test_is_a_linear_layer_on_the_mean_position():
    plain, maps_BDHW = method(), torch.randn(2, 3, 4, 4)
    mean_BD = plain.trained(maps_BDHW).flatten(2).sum(-1) / 16
    expected = torch.stack([plain.classifier.weight @ mean_D + plain.classifier.bias for mean_D in mean_BD])
    torch.testing.assert_close(plain(maps_BDHW), expected)


def test_its_loss_is_partial_bce_of_its_logits():
    plain, maps_BDHW = method(), torch.randn(2, 3, 4, 4)
    batch = Batch(maps_BDHW, maps_BDHW, LABELS_NC, torch.arange(2), torch.Generator())
    losses = plain.losses(batch, Progress(0, 20))
    assert set(losses) == {"partial_bce"}
    torch.testing.assert_close(losses["partial_bce"], partial_bce(plain(maps_BDHW), LABELS_NC))
    losses["partial_bce"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in plain.parameters())
