"""Knowledge-Guided Multi-Label Few-Shot Learning for General Image Recognition (Chen et al., TPAMI; "KGGR").

SSGRL, with a second gated graph network over the same label graph: its nodes are the classifiers' weights, so that
categories with few known labels borrow from those that they come with.

Differs from the paper: there is no official code, and this is a re-implementation of its description. The output
layer of the second network starts as a copy of the free classifiers, so that training starts exactly where SSGRL's
does. Trained by partial binary cross-entropy at SSGRL's width here, with the graph counted on known labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlrpl_bench import UNKNOWN, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import GatedGraph, SemanticGraphMethod
from mlrpl_bench.models.losses import partial_bce


@register_method(
    "kggr",
    idea="SSGRL whose classifiers, too, exchange messages along label co-occurrence.",
    paper="https://arxiv.org/abs/2009.09450",
    published="KGGR",
    differs="re-implemented from its description (no official code); starts equal to SSGRL",
)
class KGGR(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        classifier_steps: int = parameter(3, "how often classifiers exchange messages", low=1, high=20)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.propagation = ClassifierPropagation(backbone.feature_width, hyperparameters.classifier_steps)

    def forward(self, frozen_BDHW: Tensor, read_BC: Tensor | None = None) -> Tensor:
        head = self.network.head
        classifiers_CD = self.propagation(head.classifiers_CD, head.adjacency_CC)
        return head(self.network.features(self.trained(frozen_BDHW)), classifiers_CD, read_BC)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC = self(batch.frozen_BDHW, batch.labels_BC != UNKNOWN)
        return {"partial_bce": partial_bce(logits_BC, batch.labels_BC)}


class ClassifierPropagation(nn.Module):
    """From free classifiers w to those in use, M [h ; w] + b, where h is w after the gated graph.

    M starts as [0 | I] and b as 0. The graph's own weights therefore have no gradient at the very first step and
    one from the second on.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.graph = GatedGraph(width, steps)
        self.merge = nn.Linear(2 * width, width)
        with torch.no_grad():
            self.merge.weight.copy_(torch.eye(width, 2 * width).roll(width, dims=1))
            self.merge.bias.zero_()

    def forward(self, classifiers_CD: Tensor, adjacency_CC: Tensor) -> Tensor:
        # There are only C of them: in 16 bits nothing is saved, and the start would not be SSGRL's.
        with torch.autocast(classifiers_CD.device.type, enabled=False):
            nodes_CD = self.graph(classifiers_CD, adjacency_CC)
            return self.merge(torch.cat([nodes_CD, classifiers_CD], dim=-1))
