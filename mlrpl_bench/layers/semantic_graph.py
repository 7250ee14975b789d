"""The network that SSGRL introduced and its successors share, from the backbone's trained part to logits."""

from __future__ import annotations

from torch import Tensor, nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.layers.graph_head import GraphHead
from mlrpl_bench.layers.semantic_decoupling import SemanticDecoupling
from mlrpl_bench.layers.trunk import Trunk


class SemanticGraphNetwork(nn.Module):
    """Trunk, semantic decoupling and graph head (SSGRL, Chen et al., ICCV 2019).

    Methods that change something on the way call the three parts themselves.

    Args:
        backbone: gives the widths; its trained part stays with the method.
        words_CE: vectors of the category names; kept as a buffer, not trained.
        adjacency_CC: the label graph, see `label_graph.cooccurrence`.
        tied_reset: see `GatedGraph`.
    """

    words_CE: Tensor

    def __init__(self, backbone: Backbone, words_CE: Tensor, adjacency_CC: Tensor, tied_reset: bool = False) -> None:
        super().__init__()
        width = backbone.feature_width
        self.register_buffer("words_CE", words_CE)
        self.trunk = Trunk(backbone.channels, width, backbone.pool)
        self.decoupling = SemanticDecoupling(width, words_CE.shape[1], backbone.attention_width)
        self.head = GraphHead(width, adjacency_CC, tied_reset=tied_reset)

    def forward(self, trained_BDHW: Tensor) -> Tensor:
        """Logits (B, C) from the trained part's maps."""
        return self.head(self.features(trained_BDHW))

    def features(self, trained_BDHW: Tensor) -> Tensor:
        """Category features (B, C, D), before the graph."""
        return self.decoupling(self.trunk(trained_BDHW), self.words_CE)

    def attention(self, trained_BDHW: Tensor) -> Tensor:
        """Where each category looks (B, C, H, W), with sum 1 over the positions."""
        return self.decoupling.attention(self.trunk(trained_BDHW), self.words_CE)
