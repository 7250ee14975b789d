"""Positive Label Is All You Need for Multi-Label Classification (Yuan et al., ICME 2024): PU-MLC.

Known negatives are thrown away. Per category, the loss asks for high scores where the category is known to be
present and for a low mean score of all images, in which the unlabelled positives are contained. As few positives
overfit, the score of a blend of two images is asked to be the blend of their labels, or scores where unlabelled.

Differs from the paper: the loss alone, on SSGRL's network, without the convolutions' local-global branch, and
averaged over categories instead of added up; the shared recipe, which trains the last stage's batch norms too and
lowers its rate once, without a moving average of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mlrpl_bench import PRESENT, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import EpochMeans, SemanticGraphMethod, symmetric_beta

SMALLEST_TEMPERATURE = 1e-3
"""For a category whose logits are all the same."""


@register_method(
    "pu_mlc",
    idea="Throws known negatives away and learns from positives and unlabelled images, steadied by blended images.",
    paper="https://arxiv.org/abs/2306.11635",
    differs="the loss alone, on SSGRL's network, a mean over categories; no local-global branch; batch norms of the "
    "last stage train; step schedule instead of one cycle; no averaged weights",
)
class PositiveUnlabelled(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        temperature: float = parameter(1.0, "temperature per standard deviation of a category's logits", low=0.01)
        balance: float = parameter(0.55, "exponent of the mean score that weighs the unlabelled term", low=0)
        mixup: float = parameter(1.0, "weight of the blended images' term", low=0)
        mixup_shape: float = parameter(0.3, "both parameters of the blend's Beta distribution", low=0.01)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.means = EpochMeans("mean_temperature", "mean_score")

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, present_BC = self.hyperparameters, batch.labels_BC == PRESENT
        logits_BC = self(batch.frozen_BDHW).float()
        temperature_C = temperatures(logits_BC, options.temperature)
        log_scores_BC = F.logsigmoid(logits_BC / temperature_C)
        log_mean_C = log_scores_BC.logsumexp(dim=0) - math.log(len(log_scores_BC))
        self.means.update(
            progress.step, mean_temperature=temperature_C.mean(), mean_score=torch.sigmoid(logits_BC).mean()
        )
        num_present_C = present_BC.sum(dim=0)
        present_C = -torch.where(present_BC, log_scores_BC, 0).sum(dim=0) / num_present_C.clamp(min=1)
        terms = {
            "unlabelled": (log_mean_C.detach().mul(options.balance).exp() * log_mean_C).mean(),
            "present": present_C.mean(),
        }
        if options.mixup and len(logits_BC) > 1:
            terms["mixup"] = options.mixup * self._mixup(batch, logits_BC, present_BC)
        return terms

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()

    def _mixup(self, batch: Batch, logits_BC: Tensor, present_BC: Tensor) -> Tensor:
        """How far the scores of blends of two images are from the blends of their scores, squared, as logarithms.

        The images of the first half of the batch meet those of the second; an odd one takes no part.
        """
        half = len(logits_BC) // 2
        first, second = slice(half), slice(half, 2 * half)
        share = symmetric_beta(self.hyperparameters.mixup_shape, batch.generator)
        images_B3HW = torch.lerp(batch.images_B3HW[second], batch.images_B3HW[first], share)
        with torch.no_grad():
            frozen_BDHW = self.backbone.frozen(images_B3HW)
        # Known positives have score 1; the others' scores are trained by this, too.
        log_targets_BC = torch.where(present_BC, 0, F.logsigmoid(logits_BC))
        blended_BC = torch.logaddexp(log_targets_BC[first] + share.log(), log_targets_BC[second] + torch.log1p(-share))
        return (blended_BC - F.logsigmoid(self(frozen_BDHW).float())).square().mean()


def temperatures(logits_BC: Tensor, scale: float) -> Tensor:
    """Per category the standard deviation of its logits times `scale`, at most 1; 1 for a single image. No gradient."""
    if len(logits_BC) == 1:
        return torch.ones_like(logits_BC[0])
    return (scale * logits_BC.detach().std(dim=0)).clamp(SMALLEST_TEMPERATURE, 1)
