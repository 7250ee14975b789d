"""Simple and Robust Loss Design for Multi-Label Learning with Missing Labels (Zhang et al., 2021).

Two losses for training with unknown labels taken for absent. Hill's loss of a negative falls again where the score
is high, so that a positive that was taken for absent does little harm. SPLC takes an unknown label for present as
soon as its own score says so.

Differs from the paper: on SSGRL's network, averaged over the batch's entries instead of added up; the shared recipe
trains the last stage instead of the whole network, without averaged weights, cutout and RandAugment. Differs from the
code: SPLC relabels unknown entries only, and never a known negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench import PRESENT, UNKNOWN, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import EpochMeans, SemanticGraphMethod
from mlrpl_bench.models.losses import part_of_mean


@register_method(
    "hill",
    idea="Takes unknown labels for absent ones, with a loss that gives in where the score insists.",
    paper="https://arxiv.org/abs/2112.07368",
    differs="SSGRL's network, last stage trained instead of all; a mean over the batch's entries instead of a sum; no "
    "averaged weights; no cutout or RandAugment",
)
class Hill(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        margin: float = parameter(1.0, "taken off the logits of positives", low=0)
        focus: float = parameter(2.0, "exponent that weighs easy positives down", low=0)
        height: float = parameter(1.5, "lambda of the negatives' loss (lambda - p) p^2", low=1)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW).float()
        positive_BC = focal(logits_BC - options.margin, options.focus)
        scores_BC = torch.sigmoid(logits_BC)
        negative_BC = (options.height - scores_BC) * scores_BC.square()
        unknown_BC = batch.labels_BC == UNKNOWN
        losses_BC = torch.where(batch.labels_BC == PRESENT, positive_BC, negative_BC)
        return {"known": part_of_mean(losses_BC, ~unknown_BC), "assumed_absent": part_of_mean(losses_BC, unknown_BC)}


@register_method(
    "splc",
    idea="Takes unknown labels for absent ones, or for present where the score already says so.",
    paper="https://arxiv.org/abs/2112.07368",
    published="SPLC",
    differs="SSGRL's network, last stage trained instead of all; a mean over the batch's entries instead of a sum; "
    "known negatives are never relabelled; no averaged weights; no cutout or RandAugment",
)
class SelfPacedLossCorrection(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        margin: float = parameter(1.0, "taken off the logits of known positives", low=0)
        focus: float = parameter(2.0, "exponent that weighs easy entries down", low=0)
        threshold: float = parameter(0.6, "score above which an unknown label counts as present", low=0, high=1)
        start: int = parameter(1, "first epoch with relabelling, of the paper's 20", low=0, high=19)

    labels_NC: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.means = EpochMeans("relabelled_share")
        self.register_buffer("labels_NC", task.labels_NC.clone())  # known, and relabelled when last seen

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW).float()
        present_BC, unknown_BC = batch.labels_BC == PRESENT, batch.labels_BC == UNKNOWN
        relabelled_BC = unknown_BC & (torch.sigmoid(logits_BC) > options.threshold)
        relabelled_BC &= progress.epoch_of_20() >= options.start  # unlike `started`, never in the very first epoch
        self.labels_NC[batch.index_B] = batch.labels_BC.masked_fill(relabelled_BC, PRESENT)
        self.means.update(progress.step, relabelled_share=relabelled_BC.float().mean())
        # Only known positives have the margin: a relabelled entry is judged by the logit that relabelled it.
        positive_BC = focal(torch.where(present_BC, logits_BC - options.margin, logits_BC), options.focus)
        losses_BC = torch.where(present_BC | relabelled_BC, positive_BC, focal(-logits_BC, options.focus))
        return {
            "known": part_of_mean(losses_BC, ~unknown_BC),
            "assumed_absent": part_of_mean(losses_BC, unknown_BC & ~relabelled_BC),
            "relabelled": part_of_mean(losses_BC, relabelled_BC),
        }

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        return self.labels_NC.cpu().numpy()


def focal(logits_BC: Tensor, focus: float) -> Tensor:
    """The focal loss of a positive, -(1 - p)^focus log p; of a negative for the logit's opposite."""
    weights_BC = (focus * F.logsigmoid(-logits_BC)).exp()  # unlike a power it has a gradient where 1 - p is 0
    return -weights_BC * F.logsigmoid(logits_BC)
