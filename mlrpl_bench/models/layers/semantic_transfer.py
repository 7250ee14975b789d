"""This module holds what SST (Chen et al., AAAI 2022) and HST (Chen et al., IJCV 2024) share: they transfer known
labels to unknown ones.

Within an image, by which categories occur together; across images, by how alike the features of a category are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.layers.contrast import contrast, warm_up
from mlrpl_bench.models.layers.epoch_means import EpochMeans
from mlrpl_bench.models.layers.heads import PairHead, both_present
from mlrpl_bench.models.layers.semantic_graph import SemanticGraphMethod
from mlrpl_bench.models.losses import asymmetric, partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task


class SemanticTransferMethod(SemanticGraphMethod):
    """This is SSGRL's network with a head on pairs of categories, from the first epoch on; labels are transferred
    later.

    A subclass adds `transfer`.
    """

    labels_NC: Tensor

    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        start: int = parameter(5, "first epoch with transferred labels, of the paper's 20", low=0, high=19)
        cooccurrence: float = parameter(10.0, "weight of the loss of the pairs of categories", low=0)
        contrastive: float = parameter(0.05, "weight of the contrastive loss", low=0)
        absent_pairs: bool = parameter(True, "contrast pairs of images that both lack the category, too")

    def __init__(self, backbone: Backbone, task: Task, hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.pairs = PairHead(backbone.feature_width, len(task.categories))
        self.filled = EpochMeans("intra_filled_share", "inter_filled_share")
        self.register_buffer("labels_NC", task.labels_NC.clone())  # known, and filled in when last seen

    def transfer(
        self, features_BCD: Tensor, logits_BC: Tensor, pair_logits_BP: Tensor, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the loss terms of transferred labels."""
        raise NotImplementedError

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        features_BCD = self.network.features(self.trained(batch.frozen_BDHW))
        logits_BC = self.network.head(features_BCD)
        pair_logits_BP = self.pairs(features_BCD)
        pair_losses_BP = asymmetric(
            pair_logits_BP, both_present(batch.labels_BC), focus_present=1, focus_absent=2, margin=0.05
        )
        return {
            "partial_bce": partial_bce(logits_BC, batch.labels_BC),
            "cooccurrence": options.cooccurrence * warm_up(progress) * pair_losses_BP.mean(),
            **contrast(features_BCD, batch, progress, options.contrastive, options.absent_pairs),
            **self.transfer(features_BCD, logits_BC, pair_logits_BP, batch, progress),
        }

    def note(self, batch: Batch, progress: Progress, intra_BC: Tensor, inter_BC: Tensor) -> None:
        """Keep what was filled in at this step, for the history; no loss reads it."""
        self.filled.update(
            progress.step,
            intra_filled_share=filled_share(batch.labels_BC, intra_BC),
            inter_filled_share=filled_share(batch.labels_BC, inter_BC),
        )
        self.labels_NC[batch.index_B] = torch.maximum(intra_BC, inter_BC)

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        return self.labels_NC.cpu().numpy()


def fill(labels_BC: Tensor, probable_BC: Tensor) -> Tensor:
    """Return the labels with the probable ones of the unknown set to PRESENT."""
    return torch.where((labels_BC == UNKNOWN) & probable_BC, PRESENT, labels_BC)


def filled_share(labels_BC: Tensor, filled_BC: Tensor) -> Tensor:
    """Return the share of the unknown labels that was filled in; 0 where none is unknown."""
    return (filled_BC != labels_BC).sum() / (labels_BC == UNKNOWN).sum().clamp(min=1)
