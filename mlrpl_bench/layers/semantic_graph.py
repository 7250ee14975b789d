"""The network that SSGRL introduced and its successors share, from the backbone's trained part to logits."""

from __future__ import annotations

from torch import Tensor, nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.layers.graph_head import GraphHead
from mlrpl_bench.layers.semantic_attention import SemanticAttention
from mlrpl_bench.layers.semantic_decoupling import SemanticDecoupling
from mlrpl_bench.layers.trunk import Trunk

ATTENTIONS = ("decoupling", "attention")


class SemanticGraphNetwork(nn.Module):
    """Trunk, semantic decoupling and graph head (SSGRL, Chen et al., ICCV 2019).

    Methods that change something on the way call the three parts themselves.

    Args:
        backbone: gives the widths; its trained part stays with the method.
        words_CE: vectors of the category names; kept as a buffer, not trained.
        adjacency_CC: the label graph, see `label_graph.cooccurrence`.
        tied_reset: see `GatedGraph`.
        attention: how category features are collected: ``decoupling`` (by word vectors) or ``attention`` (by class
            activation maps, see `SemanticAttention`; the words then play no part).
        normalisation: of ``attention``, see there.
    """

    words_CE: Tensor

    def __init__(
        self,
        backbone: Backbone,
        words_CE: Tensor,
        adjacency_CC: Tensor,
        tied_reset: bool = False,
        attention: str = "decoupling",
        normalisation: str = "mean",
    ) -> None:
        super().__init__()
        assert attention in ATTENTIONS, attention
        width, num_categories = backbone.feature_width, len(adjacency_CC)
        self.register_buffer("words_CE", words_CE)
        self.trunk = Trunk(backbone.channels, width, backbone.pool)
        self.uses_words = attention == "decoupling"
        if self.uses_words:
            self.decoupling = SemanticDecoupling(width, words_CE.shape[1], backbone.attention_width)
        else:
            self.semantic_attention = SemanticAttention(backbone.channels, num_categories, backbone.pool, normalisation)
        self.head = GraphHead(width, adjacency_CC, tied_reset=tied_reset)

    def forward(self, trained_BDHW: Tensor, read_BC: Tensor | None = None) -> Tensor:
        """Logits (B, C) from the trained part's maps; `read_BC` as in `GraphHead`."""
        return self.head(self.features(trained_BDHW), read_BC=read_BC)

    def features(self, trained_BDHW: Tensor) -> Tensor:
        """Category features (B, C, D), before the graph."""
        maps_BDHW = self.trunk(trained_BDHW)
        if self.uses_words:
            return self.decoupling(maps_BDHW, self.words_CE)
        return self.semantic_attention(maps_BDHW, trained_BDHW)

    def attention(self, trained_BDHW: Tensor) -> Tensor:
        """Where each category looks (B, C, H, W), non-negative; with sum 1 over the positions if words guide it."""
        if self.uses_words:
            return self.decoupling.attention(self.trunk(trained_BDHW), self.words_CE)
        return self.semantic_attention.attention(trained_BDHW)
