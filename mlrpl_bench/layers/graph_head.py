"""From category features to logits: exchange along the label graph, then one linear classifier per category."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlrpl_bench.layers.gated_graph import GatedGraph, pick


class GraphHead(nn.Module):
    """SSGRL's head (Chen et al., ICCV 2019, sections 3.3 and 3.4), called phi by the methods that blend features.

    With f the features and h the nodes after the graph network that starts from them,

        o = tanh(W_o [h ; f] + b_o)
        logit_c = w_c . o_c + b_c

    Args:
        width: D of the features.
        adjacency_CC: the label graph; kept as a buffer, not trained.
        steps, tied_reset: see `GatedGraph`.
    """

    adjacency_CC: Tensor

    def __init__(self, width: int, adjacency_CC: Tensor, steps: int = 3, tied_reset: bool = False) -> None:
        super().__init__()
        self.register_buffer("adjacency_CC", adjacency_CC)
        self.graph = GatedGraph(width, steps, tied_reset)
        self.merge = nn.Linear(2 * width, width)
        num_categories, bound = len(adjacency_CC), width**-0.5
        self.classifiers_CD = nn.Parameter(torch.empty(num_categories, width).uniform_(-bound, bound))
        self.bias_C = nn.Parameter(torch.empty(num_categories).uniform_(-bound, bound))

    def forward(
        self, features_BCD: Tensor, classifiers_CD: Tensor | None = None, read_BC: Tensor | None = None
    ) -> Tensor:
        """Logits (B, C).

        Args:
            classifiers_CD: in place of the head's own, where a method computes them (KGGR).
            read_BC: bool, where the loss reads a logit. Elsewhere it is 0, without a gradient, and the last step of
                the graph and the classifier are left out: at 10 % known labels a third of the head's work.
        """
        if classifiers_CD is None:
            classifiers_CD = self.classifiers_CD
        if read_BC is not None:
            return self._read_logits(features_BCD, classifiers_CD, read_BC)
        nodes_BCD = self.graph(features_BCD, self.adjacency_CC)
        return self._classify(nodes_BCD, features_BCD, classifiers_CD, self.bias_C)

    def _read_logits(self, features_BCD: Tensor, classifiers_CD: Tensor, read_BC: Tensor) -> Tensor:
        wanted_N = read_BC.flatten().nonzero().squeeze(1)
        category_N = wanted_N % read_BC.shape[1]
        nodes_ND = self.graph(features_BCD, self.adjacency_CC, wanted_N)
        logits_N = self._classify(
            nodes_ND, pick(features_BCD, wanted_N), classifiers_CD[category_N], self.bias_C[category_N]
        )
        return logits_N.new_zeros(read_BC.numel()).index_copy(0, wanted_N, logits_N).view(read_BC.shape)

    def _classify(self, nodes: Tensor, features: Tensor, classifiers: Tensor, biases: Tensor) -> Tensor:
        """Logits of nodes (..., D), each with its feature, classifier and bias."""
        outputs = torch.tanh(self.merge(torch.cat([nodes, features], dim=-1)))
        return (outputs * classifiers).sum(dim=-1) + biases
