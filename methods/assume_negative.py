"""Multi-Label Learning from Single Positive Labels (Cole et al., CVPR 2021): unknown means absent.

The simplest ways to train on every entry: an unknown label is taken for an absent one (AN), with smoothed labels so
that a wrong assumption costs less (AN-LS), or with such entries weighted down (WAN).

Differs from the paper: on SSGRL's network; there are known negatives here, which count fully, and WAN weights only
the assumed ones down; ResNet-101's last stage is trained from the start, without a linear phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrpl_bench import PRESENT, UNKNOWN, Batch, Progress, parameter, register_method
from mlrpl_bench.models.layers import SemanticGraphMethod
from mlrpl_bench.models.losses import clipped_log_sigmoid, part_of_mean


@register_method(
    "an",
    idea="Takes every unknown label for an absent one.",
    paper="https://arxiv.org/abs/2106.09708",
    differs="SSGRL's network; known negatives count as such, beside the assumed ones",
)
@register_method("an_ls", idea="Takes every unknown label for an absent one, and smooths all labels.", smoothing=0.1)
@register_method(
    "wan", idea="Takes unknown labels for absent ones that weigh as little as the categories are many.", weak=True
)
class AssumeNegative(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        smoothing: float = parameter(0.0, "share of the opposite label in every target", low=0, high=0.5)
        weak: bool = parameter(False, "weigh assumed negatives by 1 / (number of categories - 1)")

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC, smoothing = self(batch.frozen_BDHW), self.hyperparameters.smoothing
        present_BC, unknown_BC = batch.labels_BC == PRESENT, batch.labels_BC == UNKNOWN
        targets_BC = torch.where(present_BC, 1 - smoothing, smoothing)
        losses_BC = -targets_BC * clipped_log_sigmoid(logits_BC) - (1 - targets_BC) * clipped_log_sigmoid(-logits_BC)
        weight = 1 / max(logits_BC.shape[1] - 1, 1) if self.hyperparameters.weak else 1
        return {
            "known": part_of_mean(losses_BC, ~unknown_BC),
            "assumed_absent": weight * part_of_mean(losses_BC, unknown_BC),
        }
