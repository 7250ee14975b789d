import torch
from torch import nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.layers.semantic_graph import SemanticGraphNetwork


def network():
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Identity(), channels=12, feature_width=8, attention_width=6, pool=True)
    return SemanticGraphNetwork(backbone, torch.randn(5, 7), torch.eye(5))


def test_is_the_composition_of_its_parts():
    parts, maps_BDHW = network().eval(), torch.randn(2, 12, 6, 6)
    features_BCD = parts.decoupling(parts.trunk(maps_BDHW), parts.words_CE)
    torch.testing.assert_close(parts.features(maps_BDHW), features_BCD)
    torch.testing.assert_close(parts(maps_BDHW), parts.head(features_BCD))
    assert parts.attention(maps_BDHW).shape == (2, 5, 3, 3)


def test_words_and_graph_are_saved_but_not_trained():
    parts = network()
    fixed = {"words_CE", "head.adjacency_CC"}
    assert fixed <= set(parts.state_dict()) and not fixed & set(dict(parts.named_parameters()))
