import torch
from torch import nn

from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.semantic_graph import SemanticGraphNetwork


def network(**options):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Identity(), channels=12, feature_width=8, attention_width=6, pool=True)
    return SemanticGraphNetwork(backbone, torch.randn(5, 7), torch.eye(5), **options)


def test_is_the_composition_of_its_parts():
    parts, maps_BDHW = network().eval(), torch.randn(2, 12, 6, 6)
    features_BCD = parts.decoupling(parts.trunk(maps_BDHW), parts.words_CE)
    torch.testing.assert_close(parts.features(maps_BDHW), features_BCD)
    torch.testing.assert_close(parts(maps_BDHW), parts.head(features_BCD))
    assert parts.attention(maps_BDHW).shape == (2, 5, 3, 3)


def test_semantic_attention_reads_the_map_before_the_reduction_and_collects_the_reduced_one():
    parts, maps_BDHW = network(attention="attention", normalisation="none").eval(), torch.randn(2, 12, 6, 6)
    features_BCD = parts.semantic_attention(parts.trunk(maps_BDHW), maps_BDHW)
    torch.testing.assert_close(parts.features(maps_BDHW), features_BCD)
    torch.testing.assert_close(parts(maps_BDHW), parts.head(features_BCD))
    torch.testing.assert_close(parts.attention(maps_BDHW), parts.semantic_attention.attention(maps_BDHW))
    assert parts.attention(maps_BDHW).shape == (2, 5, 3, 3)
    assert parts.semantic_attention.normalisation == "none"


def test_the_kind_of_attention_changes_nothing_else():
    by_words, by_maps = (dict(network(attention=kind).named_parameters()) for kind in ("decoupling", "attention"))
    rest = {name: value.shape for name, value in by_words.items() if not name.startswith("decoupling")}
    assert rest == {name: value.shape for name, value in by_maps.items() if not name.startswith("semantic_attention")}


def test_words_and_graph_are_saved_but_not_trained():
    parts = network()
    fixed = {"words_CE", "head.adjacency_CC"}
    assert fixed <= set(parts.state_dict()) and not fixed & set(dict(parts.named_parameters()))
