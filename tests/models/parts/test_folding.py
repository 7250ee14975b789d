"""Folded networks compute what they computed, with fewer batch norms."""

import copy

import pytest
import timm
import torch
from torch import nn

from mlrpl_bench.models.parts.folding import batch_norms, fold


def with_statistics(network):
    """The network with batch norms that have seen something, in eval mode."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                tensor.uniform_(low, high, generator=random)
    return network.eval()


@torch.no_grad()
def difference(network, folded, images_B3HW):
    """The largest difference between the two outputs, relative to the largest output."""
    before, after = network(images_B3HW), folded(images_B3HW)
    return ((before - after).abs().max() / before.abs().max()).item()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet18", "test_resnet"])
def test_every_batch_norm_of_a_whole_network_is_folded_and_the_output_stays(name):
    torch.manual_seed(0)
    network = with_statistics(timm.create_model(name))
    folded = copy.deepcopy(network)
    assert fold(folded) == batch_norms(network) > 0
    assert batch_norms(folded) == 0
    images_B3HW = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    assert 0 < difference(network, folded, images_B3HW) <= 1e-5


class Shared(nn.Module):
    """The convolution is read by the norm and by the sum, and called twice."""

    def __init__(self, twice):
        super().__init__()
        self.convolution, self.norm, self.twice = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), twice

    def forward(self, images_B3HW):
        maps = self.convolution(images_B3HW)
        return self.norm(self.convolution(maps)) if self.twice else maps + self.norm(maps)


@pytest.mark.parametrize("twice", [False, True])
def test_a_convolution_that_something_else_needs_as_it_is_stays_as_it_is(twice):
    network = with_statistics(Shared(twice))
    assert fold(network) == 0 and batch_norms(network) == 1


class Choosing(nn.Module):
    """Cannot be traced: what it does depends on the numbers."""

    def forward(self, maps_BDHW):
        return maps_BDHW if maps_BDHW.sum() > 0 else -maps_BDHW


def test_what_cannot_be_traced_is_left_out_and_its_neighbours_are_folded():
    parts = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network = with_statistics(nn.Sequential(parts, Choosing(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    folded = copy.deepcopy(network)
    assert fold(folded) == 1 and batch_norms(folded) == 1
    assert difference(network, folded, torch.randn(2, 3, 8, 8)) <= 1e-5


def test_the_activation_and_the_way_of_padding_stay():
    network = with_statistics(timm.create_model("tf_efficientnet_lite0"))
    fold(network)
    assert type(network.conv_stem).__name__ == "Conv2dSame" and network.conv_stem.bias is not None
    assert isinstance(network.bn1[0], nn.ReLU6)


def test_a_network_that_is_trained_cannot_be_folded():
    with pytest.raises(AssertionError, match="eval mode"):
        fold(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
