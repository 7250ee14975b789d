"""From category features to logits: exchange along the label graph, then one linear classifier per category."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlrpl_bench.layers.gated_graph import GatedGraph


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

    def forward(self, features_BCD: Tensor, classifiers_CD: Tensor | None = None) -> Tensor:
        """Logits (B, C); with other classifiers than its own where a method computes them (KGGR)."""
        if classifiers_CD is None:
            classifiers_CD = self.classifiers_CD
        nodes_BCD = self.graph(features_BCD, self.adjacency_CC)
        outputs_BCD = torch.tanh(self.merge(torch.cat([nodes_BCD, features_BCD], dim=-1)))
        return (outputs_BCD * classifiers_CD).sum(dim=-1) + self.bias_C
