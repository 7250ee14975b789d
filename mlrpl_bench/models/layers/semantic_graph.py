"""This module is the network that SSGRL introduced and its successors share, from the backbone's trained part to
logits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mlrpl_bench.data.protocol import UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.layers.attention import SemanticAttention, SemanticDecoupling
from mlrpl_bench.models.layers.graphs import ESTIMATORS, cooccurrence
from mlrpl_bench.models.layers.heads import GraphHead
from mlrpl_bench.models.method import Batch, Method, Task

ATTENTIONS = ("decoupling", "attention")


class SemanticGraphNetwork(nn.Module):
    """This network is trunk, semantic decoupling and graph head (SSGRL, Chen et al., ICCV 2019).

    Methods that change something on the way call the three parts themselves.

    Args:
        backbone: gives the widths; its trained part stays with the method.
        words_CE: vectors of the category names; kept as a buffer, not trained.
        adjacency_CC: the label graph, see `graphs.cooccurrence`.
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
        """Return category features (B, C, D), before the graph."""
        maps_BDHW = self.trunk(trained_BDHW)
        if self.uses_words:
            return self.decoupling(maps_BDHW, self.words_CE)
        return self.semantic_attention(maps_BDHW, trained_BDHW)

    def attention(self, trained_BDHW: Tensor) -> Tensor:
        """Return where each category looks (B, C, H, W), non-negative.

        The sum over the positions is 1 if words guide it.
        """
        if self.uses_words:
            return self.decoupling.attention(self.trunk(trained_BDHW), self.words_CE)
        return self.semantic_attention.attention(trained_BDHW)


class SemanticGraphMethod(Method):
    """This is SSGRL's network on the method's own copy of the trained part, with the graph of the known labels.

    A subclass adds `losses`; its hyper-parameters extend those here. Options of the network are passed on to it.
    """

    @dataclass(frozen=True)
    class Hyperparameters:
        graph_estimator: str = parameter("reference", "how the label graph is counted", choices=ESTIMATORS)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters, **network: Any) -> None:
        super().__init__(backbone, task, hyperparameters)
        graph_CC = cooccurrence(task.labels_NC, hyperparameters.graph_estimator)
        self.network = SemanticGraphNetwork(backbone, task.word_vectors_CE, graph_CC, **network)

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.network(self.trained(frozen_BDHW))

    def known_logits(self, batch: Batch) -> Tensor:
        """Logits (B, C) for a loss that reads the known labels alone: right there, 0 elsewhere, and cheaper."""
        return self.network(self.trained(batch.frozen_BDHW), batch.labels_BC != UNKNOWN)

    def parts_to_compile(self) -> Iterable[nn.Module]:
        # Methods call the network's parts one by one.
        own = [part for part in self.children() if part is not self.network]
        return [*own, *self.network.children()]

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.network.attention(self.trained(frozen_BDHW))


class Trunk(nn.Sequential):
    """Average 2 x 2 positions if asked to, then bring the map to `width` channels if it has another number.

    Maps (B, channels, H, W) become (B, width, H / 2, W / 2), or (B, width, H, W) without the pool.

    The SSGRL paper (Chen et al., ICCV 2019, https://arxiv.org/abs/1908.07325) mentions neither step; its code pools,
    and SARB's code also reduces 2048 channels to 1024 by a convolution and a batch norm, without a ReLU: features
    stay signed.
    """

    def __init__(self, channels: int, width: int, pool: bool) -> None:
        super().__init__()
        if pool:
            self.append(nn.AvgPool2d(2))
        if channels != width:
            self.append(nn.Conv2d(channels, width, kernel_size=1, bias=False))
            self.append(nn.BatchNorm2d(width))
