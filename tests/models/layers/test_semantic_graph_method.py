import torch
from torch import nn

from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.layers.semantic_graph import SemanticGraphMethod
from mlrpl_bench.models.method import Task
from mlrpl_bench.models.registry import load_methods

LABELS_NC = torch.tensor([[1, 1, -1, 0], [0, 1, 1, 0], [1, -1, 0, 0]], dtype=torch.int8)


def built(cls, **options):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=5, attention_width=4, pool=True)
    task = Task(("a", "b", "c", "d"), LABELS_NC, 0.5, torch.randn(4, 7))
    return cls(backbone, task, cls.Hyperparameters(**options))


def test_network_and_scores_are_those_of_ssgrl_weights_included():
    ours, ssgrl, maps_BDHW = built(SemanticGraphMethod), built(load_methods()["ssgrl"].cls), torch.randn(3, 3, 6, 6)
    assert ours.state_dict().keys() == ssgrl.state_dict().keys()
    assert all(torch.equal(value, ssgrl.state_dict()[name]) for name, value in ours.state_dict().items())
    torch.testing.assert_close(ours.eval()(maps_BDHW), ssgrl.eval()(maps_BDHW))
    torch.testing.assert_close(ours.attention(maps_BDHW), ssgrl.attention(maps_BDHW))


def test_the_graph_is_counted_as_asked_for():
    for estimator in ("reference", "unbiased"):
        graph_CC = built(SemanticGraphMethod, graph_estimator=estimator).network.head.adjacency_CC
        torch.testing.assert_close(graph_CC, cooccurrence(LABELS_NC, estimator))
