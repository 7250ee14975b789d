"""Multi-Label Image Recognition with Graph Convolutional Networks (Chen et al., CVPR 2019; "ML-GCN").

The classifiers are not free weights: two graph convolutions compute them from the vectors of the category names,
along label co-occurrence. The image gives one feature, the largest value of each channel.

Differs from the paper: partial binary cross-entropy, the shared recipe and the shared frozen layers. The graph is
counted without the bias of hidden labels: with the usual estimate no edge would pass the threshold where fewer than
40 % are known. Edges are divided by column sums, as the paper's code does (the paper: rows, ``divided_by=rows``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlrpl_bench import Backbone, Batch, Method, Progress, Recipe, Task, parameter, register_method
from mlrpl_bench.models.layers import ESTIMATORS, cooccurrence
from mlrpl_bench.models.losses import partial_bce


@register_method(
    "gcn_ml",
    idea="Graph convolutions over label co-occurrence compute the classifiers from the vectors of the category names.",
    paper="https://arxiv.org/abs/1904.03582",
    published="GCN-ML",
    differs="partial binary cross-entropy; unbiased graph counted on known labels; shared recipe and frozen layers",
)
class GCNML(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        graph_estimator: str = parameter("unbiased", "how the label graph is counted", choices=ESTIMATORS)
        threshold: float = parameter(0.4, "smallest conditional probability that is an edge", low=0, high=1)
        neighbour_weight: float = parameter(
            0.2, "weight of all neighbours; the rest is the category's own", low=0, high=0.99
        )
        divided_by: str = parameter("columns", "which sums of edges share that weight out", choices=("columns", "rows"))

    recipe = Recipe()

    words_CE: Tensor
    propagation_CC: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        graph_CC = cooccurrence(task.labels_NC, hyperparameters.graph_estimator)
        propagation_CC = propagation(
            graph_CC, hyperparameters.threshold, hyperparameters.neighbour_weight, hyperparameters.divided_by
        )
        self.register_buffer("words_CE", task.word_vectors_CE)
        self.register_buffer("propagation_CC", propagation_CC)
        hidden = backbone.feature_width  # the paper: 1024
        self.first_EF = initial_weights(task.word_vectors_CE.shape[1], hidden)
        self.second_FD = initial_weights(hidden, backbone.channels)

    def classifiers_CD(self) -> Tensor:
        """One classifier per category, computed from the words."""
        hidden_CF = F.leaky_relu(self.propagation_CC @ (self.words_CE @ self.first_EF), 0.2)
        return self.propagation_CC @ (hidden_CF @ self.second_FD)

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.trained(frozen_BDHW).amax(dim=(2, 3)) @ self.classifiers_CD().T

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"partial_bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}


def propagation(graph_CC: Tensor, threshold: float, neighbour_weight: float, divided_by: str = "columns") -> Tensor:
    """The matrix of the graph convolutions: edges made equal, re-weighted, with self-loops, normalised.

    With E_ij = 1 where i and j differ and P(j | i) reaches the threshold, and w the neighbours' weight,

        A_ij = w / (1 - w) * E_ij / (1e-6 + sum over the column (or row) of E) + (i = j)
        D^-1/2 A^T D^-1/2, where D holds the row sums of A

    as in the paper's code; the paper shares out by rows and gives the category itself the weight 1 - w.
    """
    edges_CC = (graph_CC >= threshold).float().fill_diagonal_(0)
    sums_CC = edges_CC.sum(dim=0 if divided_by == "columns" else 1, keepdim=True) + 1e-6
    weights_CC = neighbour_weight / (1 - neighbour_weight) * edges_CC / sums_CC + torch.eye(len(graph_CC))
    scale_C = weights_CC.sum(dim=1).rsqrt()
    return scale_C[:, None] * weights_CC.T * scale_C


def initial_weights(width_in: int, width_out: int) -> nn.Parameter:
    """A graph convolution's weights; their range depends on the output's width, as in the paper's code."""
    bound = width_out**-0.5
    return nn.Parameter(torch.empty(width_in, width_out).uniform_(-bound, bound))
