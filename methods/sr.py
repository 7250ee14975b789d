"""Saliency Regularization for Self-Training with Partial Annotations (Wang et al., ICCV 2023).

A logit is the mean of the category's class activation map plus a part of the mean of its highest positions, so that
training raises the salient region of what is present (SR). Self-training (SR-ST): what the network is sure of in an
image becomes the label of its unknown entries in a strongly augmented view of the same image.

There is no published code, and the paper's supplement, with the rates and the augmentations, was not at hand. Chosen
here: the shared recipe (Adam; the paper: SGD); the score at test time is the whole logit; the weak view is the training
view, and the strong one has a crop and mirror of its own and is then changed by torchvision's RandAugment; known labels
count on both views (``supervised``). The authors say that self-training is not meant for masks without known
negatives: every score then runs to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    Backbone,
    Batch,
    Method,
    Progress,
    Recipe,
    StrongView,
    Task,
    parameter,
    register_method,
)
from mlrpl_bench.models.layers import ClassMaps, EpochMeans
from mlrpl_bench.models.losses import partial_bce

BOTH, WEAK = "both", "weak"


@register_method(
    "sr",
    idea="Adds the mean of its highest positions to each category's logit, so that what is present becomes salient.",
    paper="https://openaccess.thecvf.com/content/ICCV2023/html/"
    "Wang_Saliency_Regularization_for_Self-Training_with_Partial_Annotations_ICCV_2023_paper.html",
    published="BN-BCE+SR",
    differs="no published code: from the paper's equations; Adam and the shared recipe",
)
class SaliencyRegularization(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        saliency: float = parameter(0.5, "weight of the highest positions' mean beside that of all", low=0)
        positions: int = parameter(5, "number of highest positions", low=1)

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.class_maps = ClassMaps(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        options = self.hyperparameters
        return salient_logits(self.class_maps(self.trained(frozen_BDHW)), options.saliency, options.positions)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"partial_bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.class_maps(self.trained(frozen_BDHW)).relu()


@register_method(
    "sr_st",
    idea="As sr; what it is sure of in an image also labels the unknown entries of a strongly augmented view.",
    paper="https://openaccess.thecvf.com/content/ICCV2023/html/"
    "Wang_Saliency_Regularization_for_Self-Training_with_Partial_Annotations_ICCV_2023_paper.html",
    published="SR-ST (SR+CR)",
    differs="no published code: from the paper's equations; Adam and the shared recipe; chosen here: the strong view "
    "(a crop and mirror of its own, then RandAugment), and that known labels count on both views (supervised); not "
    "meant for masks without known negatives",
)
class SelfTraining(SaliencyRegularization):
    @dataclass(frozen=True)
    class Hyperparameters(SaliencyRegularization.Hyperparameters):
        threshold: float = parameter(0.6, "smallest probability of a state that becomes a label", low=0.5, high=0.9999)
        supervised: str = parameter(BOTH, "the views on which known labels count", choices=(BOTH, WEAK))
        operations: int = parameter(2, "RandAugment: changes of each strong view", low=0)
        magnitude: int = parameter(9, "RandAugment: their strength, of 30", low=0, high=30)

    labels_NC: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.means = EpochMeans("pseudo_present_share", "pseudo_absent_share")
        self.register_buffer("labels_NC", task.labels_NC.clone())  # known, and pseudo-labels when last seen

    def strong_view(self) -> StrongView:
        return StrongView(self.hyperparameters.operations, self.hyperparameters.magnitude)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        weak_BC, strong_BC = self._logits_of_views(batch)
        pseudo_BC = pseudo_labels(weak_BC, batch.labels_BC, options.threshold)
        self._note(pseudo_BC, batch, progress)
        if options.supervised == WEAK:
            known = partial_bce(weak_BC, batch.labels_BC)
        else:
            known = partial_bce(torch.cat([weak_BC, strong_BC]), batch.labels_BC.repeat(2, 1))
        return {"partial_bce": known, "pseudo_labels": partial_bce(strong_BC, pseudo_BC)}

    def _logits_of_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of the training view and of the strong one; both in one batch of the trained part."""
        assert batch.strong_BDHW is not None, "a batch of a training step has the view that `strong_view` asks for"
        weak_BC, strong_BC = self(torch.cat([batch.frozen_BDHW, batch.strong_BDHW])).chunk(2)
        return weak_BC, strong_BC

    def _note(self, pseudo_BC: Tensor, batch: Batch, progress: Progress) -> None:
        """Keep what is only reported."""
        self.labels_NC[batch.index_B] = torch.where(batch.labels_BC == UNKNOWN, pseudo_BC, batch.labels_BC)
        self.means.update(
            progress.step,
            pseudo_present_share=(pseudo_BC == PRESENT).float().mean(),
            pseudo_absent_share=(pseudo_BC == ABSENT).float().mean(),
        )

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        return self.labels_NC.cpu().numpy()


def salient_logits(maps_BCHW: Tensor, saliency: float, positions: int) -> Tensor:
    """The mean over the positions, plus a part of the mean over the highest of them (all, if there are fewer).

    >>> salient_logits(torch.tensor([[[[3.0, -1.0], [0.0, 2.0]]]]), saliency=0.5, positions=2)
    tensor([[2.2500]])
    """
    maps_BCP = maps_BCHW.flatten(2)
    highest_BCK = maps_BCP.topk(min(positions, maps_BCP.shape[2]), dim=2).values
    return maps_BCP.mean(dim=2) + saliency * highest_BCK.mean(dim=2)


def pseudo_labels(logits_BC: Tensor, labels_BC: Tensor, threshold: float) -> Tensor:
    """The states of unknown entries whose probability reaches a threshold; known entries take no part.

    Returns:
        int8 (B, C), UNKNOWN where the label is known or neither state is probable enough; without a gradient.
    """
    smallest = math.log(threshold / (1 - threshold))
    sure_BC = torch.where(logits_BC <= -smallest, ABSENT, UNKNOWN).masked_fill(logits_BC >= smallest, PRESENT)
    return torch.where(labels_BC == UNKNOWN, sure_BC, UNKNOWN).to(torch.int8)
