"""Boosting Single Positive Multi-label Classification with Generalized Robust Loss (Chen et al., IJCAI 2024).

An unknown label costs a blend of a robust loss of a positive and one of a negative. The share of the positive one
grows with the entry's score; a bell around a score that moves from 0.5 to 0.8 weighs the entry. Neither has a
gradient; their constants move from epoch to epoch.

Differs from the paper: on SSGRL's network; known negatives count as known positives do; the code's default constants
on every data set (``growth=coco`` has those that a later repository of others uses for COCO); the head at the common
rate (``head_rate``; the code: 10 times). Differs from the code: the loss is computed from logits, so that it keeps
its digits and has a gradient where a score is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mlrpl_bench import (
    PRESENT,
    UNKNOWN,
    Backbone,
    Batch,
    ParameterGroup,
    Progress,
    Task,
    parameter,
    register_method,
)
from mlrpl_bench.models.layers import EpochMeans, SemanticGraphMethod, groups_with_head_rate
from mlrpl_bench.models.losses import part_of_mean

EPSILON = 1e-7
"""Added to probabilities in the logarithms of known labels."""

GROWTHS = {"code": (0.0, 2.0, -2.0, -2.0), "coco": (0.0, 10.0, -2.0, -8.0)}
"""First and last slope, first and last offset of the positive loss's share."""

BELL = (0.5, 0.8, 2.0, 0.5)
"""First and last centre, first and last width of the weight."""


@register_method(
    "gr",
    idea="Costs an unknown label a robust mixture of a positive's and a negative's loss, mixed by its own score.",
    paper="https://arxiv.org/abs/2405.03501",
    differs="SSGRL's network; known negatives count; the code's default constants on every data set (growth); head "
    "at the common rate (head_rate)",
)
class GeneralizedRobustLoss(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        growth: str = parameter(
            "code",
            "how the positive loss's share grows: the code's constants, or a third party's",
            choices=tuple(GROWTHS),
        )
        present_exponent: float = parameter(
            0.01, "exponent of an unknown label's loss as a positive; towards 0 it is cross-entropy", low=1e-6
        )
        absent_exponent: float = parameter(1.0, "exponent of its loss as a negative; 1 is the score itself", low=1e-6)
        warm_up: int = parameter(0, "epochs at the constants' first values, of 20", low=0, high=19)
        head_rate: float = parameter(1.0, "learning rate of all but the backbone, relative to it", low=0)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.means = EpochMeans("slope", "offset", "centre", "bell_width", "present_share", "weight")

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW).float()
        unknown_BC = batch.labels_BC == UNKNOWN
        slope, offset, centre, width = self.constants(progress)
        scores_BC = logits_BC.detach().sigmoid()
        share_BC, weight_BC = present_share(scores_BC, slope, offset), bell(scores_BC, centre, width)
        self._note(progress, (slope, offset, centre, width), share_BC, weight_BC, unknown_BC)
        as_present_BC = weight_BC * share_BC * robust_loss(logits_BC, options.present_exponent)
        as_absent_BC = weight_BC * (1 - share_BC) * robust_loss(-logits_BC, options.absent_exponent)
        return {
            "known": part_of_mean(known_loss(logits_BC, batch.labels_BC), ~unknown_BC),
            "as_present": part_of_mean(as_present_BC, unknown_BC),
            "as_absent": part_of_mean(as_absent_BC, unknown_BC),
        }

    def constants(self, progress: Progress) -> tuple[float, float, float, float]:
        """Slope and offset of the share, centre and width of the bell, in this epoch.

        As in the code, the bell is one epoch ahead: the share never has its last constants, the bell never its first.
        """
        warm_up = progress.at(self.hyperparameters.warm_up)
        of_share, of_bell = (
            max(epoch - warm_up, 0) / (progress.epochs - warm_up) for epoch in (progress.epoch, progress.epoch + 1)
        )
        slope, last_slope, offset, last_offset = GROWTHS[self.hyperparameters.growth]
        centre, last_centre, width, last_width = BELL
        return (
            slope + (last_slope - slope) * of_share,
            offset + (last_offset - offset) * of_share,
            centre + (last_centre - centre) * of_bell,
            width + (last_width - width) * of_bell,
        )

    def _note(
        self,
        progress: Progress,
        constants: tuple[float, float, float, float],
        share_BC: Tensor,
        weight_BC: Tensor,
        unknown_BC: Tensor,
    ) -> None:
        """Keep what is only reported: the constants, and the means of what they make over the unknown entries."""
        slope, offset, centre, width = (torch.tensor(value, device=share_BC.device) for value in constants)
        num_unknown = unknown_BC.sum().clamp(min=1)
        self.means.update(
            progress.step,
            slope=slope,
            offset=offset,
            centre=centre,
            bell_width=width,
            present_share=(share_BC * unknown_BC).sum() / num_unknown,
            weight=(weight_BC * unknown_BC).sum() / num_unknown,
        )

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        return groups_with_head_rate(self, self.hyperparameters.head_rate)

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()


def known_loss(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """Cross-entropy with a small number added in the logarithm."""
    return -(torch.where(labels_BC == PRESENT, logits_BC, -logits_BC).sigmoid() + EPSILON).log()


def robust_loss(logits_BC: Tensor, exponent: float) -> Tensor:
    """(1 - p^exponent) / exponent (Zhang and Sabuncu, NeurIPS 2018); for a negative at the logit's opposite.

    Towards exponent 0 it is -log p, at 1 it is 1 - p. By exponents: 1 - p^0.01 has lost five digits.

    >>> robust_loss(torch.tensor([0.0]), exponent=1.0)
    tensor([0.5000])
    """
    return -torch.expm1(exponent * F.logsigmoid(logits_BC)) / exponent


def present_share(scores_BC: Tensor, slope: float, offset: float) -> Tensor:
    """How much an entry's loss is a positive's: the sigmoid of a line over its score."""
    return torch.sigmoid(slope * scores_BC + offset)


def bell(scores_BC: Tensor, centre: float, width: float) -> Tensor:
    """The weight of an entry: 1 where its score is the centre, less the further away it is."""
    return torch.exp(-(scores_BC - centre).square() / (2 * width**2))
