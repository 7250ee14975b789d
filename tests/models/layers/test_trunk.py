import torch
from torch import nn

from mlrpl_bench.models.layers.semantic_graph import Trunk


def test_pools_and_reduces_as_the_papers_do():
    trunk = Trunk(channels=12, width=4, pool=True)
    assert trunk(torch.randn(2, 12, 14, 14)).shape == (2, 4, 7, 7)
    convolution, norm = trunk[1], trunk[2]
    assert convolution.bias is None and isinstance(norm, nn.BatchNorm2d) and len(trunk) == 3


def test_does_nothing_when_there_is_nothing_to_do():
    maps_BDHW = torch.randn(2, 4, 5, 5)
    trunk = Trunk(channels=4, width=4, pool=False)
    assert trunk(maps_BDHW) is maps_BDHW
    assert not list(trunk.parameters())


def test_keeps_signs():
    assert (Trunk(12, 4, pool=False)(torch.randn(2, 12, 5, 5)) < 0).any()


def test_the_pool_is_an_average():
    maps_BDHW = torch.arange(16.0).view(1, 1, 4, 4)
    assert Trunk(1, 1, pool=True)(maps_BDHW).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
