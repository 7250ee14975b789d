"""SSGRL trained on strongly augmented images: a control for methods that use a second view, in no paper.

Self-training on two views (SR-ST) also augments more than the shared recipe does. Here the same strong view (a crop
and mirror of its own, then torchvision's RandAugment) is plain augmentation: known labels are learned on it instead of
the training view, or on both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrpl_bench import UNKNOWN, Batch, Progress, StrongView, parameter, register_method
from mlrpl_bench.models.layers import SemanticGraphMethod
from mlrpl_bench.models.losses import partial_bce

STRONG, BOTH = "strong", "both"


@register_method(
    "ssgrl_strong",
    idea="SSGRL with RandAugment as plain augmentation: it learns from the strong view instead of the training view.",
    differs="a control that no paper has, on SSGRL as it is here",
)
class StrongViewSSGRL(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        views: str = parameter(STRONG, "the views that are learned: the strong one, or both", choices=(STRONG, BOTH))
        operations: int = parameter(2, "RandAugment: changes of each strong view", low=0)
        magnitude: int = parameter(9, "RandAugment: their strength, of 30", low=0, high=30)

    def strong_view(self) -> StrongView:
        return StrongView(self.hyperparameters.operations, self.hyperparameters.magnitude)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        frozen_BDHW, labels_BC = batch.strong_BDHW, batch.labels_BC
        assert frozen_BDHW is not None, "a batch of a training step has the view that `strong_view` asks for"
        if self.hyperparameters.views == BOTH:
            frozen_BDHW, labels_BC = torch.cat([batch.frozen_BDHW, frozen_BDHW]), labels_BC.repeat(2, 1)
        logits_BC = self.network(self.trained(frozen_BDHW), labels_BC != UNKNOWN)
        return {"partial_bce": partial_bce(logits_BC, labels_BC)}
