"""Class-Distribution-Aware Pseudo-Labeling for Semi-Supervised Multi-Label Learning (Xie et al., NeurIPS 2023; "CAP").

How often a category is present among its known labels says how many of its unknown ones are: that many with the
highest scores are labelled present, the rest with the lowest absent, anew before every epoch from the sixth of 20 on.

Differs from the paper: entries are unknown here, there whole images, and so a category's share is counted and its
labels are made over its unknown entries; on SSGRL's network, by the shared recipe, averaged over the batch's entries
instead of added up; scores from the test transform of the present weights, not of averaged ones; one view, without
cutout and RandAugment. Differs from the code: where a category's share is below one entry nothing becomes present
(there everything does). Without any known negative (masks of positives only) the share is known positives over the
number that is expected to be known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench import ABSENT, PRESENT, UNKNOWN, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import SemanticGraphMethod
from mlrpl_bench.models.losses import asymmetric_absent, asymmetric_present, part_of_mean


@register_method(
    "cap",
    idea="Labels as many of a category's unknown entries present, and absent, as its known labels say there are.",
    paper="https://arxiv.org/abs/2305.02795",
    differs="adapted: per entry instead of per image; frequencies of the known labels; one view; no averaged weights, "
    "by which it would label (ema); SSGRL's network; a mean instead of a sum",
)
class ClassAwarePseudoLabels(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        present_part: float = parameter(1.0, "part of the expected positives that is labelled", low=0, high=1)
        absent_part: float = parameter(0.998, "part of the expected negatives that is labelled", low=0, high=1)
        start: int = parameter(6, "first epoch with pseudo-labels, of 20", low=0, high=19)
        focus_present: float = parameter(0.0, "exponent that weighs easy positives down", low=0)
        focus_absent: float = parameter(4.0, "exponent that weighs easy negatives down", low=0)
        margin: float = parameter(0.05, "taken off the scores of negatives", low=0, high=0.5)

    labels_NC: Tensor
    known_NC: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.known_ratio = task.known_ratio
        self.register_buffer("known_NC", task.labels_NC.clone())
        self.register_buffer("labels_NC", task.labels_NC.clone())  # known and filled in
        self._observed: list[tuple[Tensor, Tensor]] = []

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW).float()
        unknown_BC = batch.labels_BC == UNKNOWN
        labels_BC = torch.where(unknown_BC, self.labels_NC[batch.index_B], batch.labels_BC)
        present_BC = asymmetric_present(logits_BC, options.focus_present)
        absent_BC = asymmetric_absent(logits_BC, options.focus_absent, options.margin)
        losses_BC = torch.where(labels_BC == PRESENT, present_BC, absent_BC)
        terms = {"known": part_of_mean(losses_BC, ~unknown_BC)}
        if progress.started(options.start):
            terms["pseudo_labels"] = part_of_mean(losses_BC, unknown_BC & (labels_BC != UNKNOWN))
        return terms

    def passes(self, progress: Progress) -> bool:
        return progress.started(self.hyperparameters.start)

    def observe(self, batch: Batch) -> None:
        self._observed.append((batch.index_B, self(batch.frozen_BDHW).float()))

    def end_pass(self, generator: torch.Generator) -> None:
        options = self.hyperparameters
        index_N, logits_NC = (torch.cat(parts) for parts in zip(*self._observed, strict=True))
        self._observed.clear()
        known_NC = self.known_NC[index_N]
        share_C = present_shares(self.known_NC, self.known_ratio)
        parts = (options.present_part, options.absent_part)
        pseudo_NC = pseudo_labels(logits_NC, known_NC == UNKNOWN, share_C, *parts)
        self.labels_NC[index_N] = torch.where(known_NC == UNKNOWN, pseudo_NC, known_NC)

    def scalars(self) -> dict[str, float | Tensor]:
        unknown_NC = self.known_NC == UNKNOWN
        num_unknown = unknown_NC.sum().clamp(min=1)
        return {
            f"filled_{name}_share": (unknown_NC & (self.labels_NC == state)).sum() / num_unknown
            for name, state in (("present", PRESENT), ("absent", ABSENT))
        }

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        return self.labels_NC.cpu().numpy()


def present_shares(labels_NC: Tensor, known_ratio: float) -> Tensor:
    """How often each category is present, of its known labels; float64 (C,), not a number where none is known.

    Without a known negative anywhere the known labels say nothing of it: then positives are divided by the number
    of labels that the known ratio lets expect, at most 1. With single positives that is too little.
    """
    present_C = (labels_NC == PRESENT).sum(dim=0).double()
    if not (labels_NC == ABSENT).any():
        return (present_C / (known_ratio * len(labels_NC))).clamp(max=1)
    return present_C / (labels_NC != UNKNOWN).sum(dim=0)


def pseudo_labels(
    logits_NC: Tensor, unknown_NC: Tensor, share_C: Tensor, present_part: float, absent_part: float
) -> Tensor:
    """Label unknown entries by their rank in the category, and only so many that the parts are not exceeded.

    Args:
        share_C: how often each category is present; one that is not a number gets no labels.
        present_part: of the expected positives, highest scores first.
        absent_part: of the expected negatives, lowest scores first.

    Returns:
        int8 (N, C), UNKNOWN where an entry is left out; of equal scores the first rows are taken for the higher.
    """
    num_unknown_C, share_C = unknown_NC.sum(dim=0), share_C.to(logits_NC.device)
    num_present_C = _whole(present_part * share_C * num_unknown_C)
    num_absent_C = _whole(absent_part * (1 - share_C) * num_unknown_C)
    order_NC = logits_NC.masked_fill(~unknown_NC, -math.inf).argsort(dim=0, descending=True, stable=True)
    rank_N1 = torch.arange(len(logits_NC), device=logits_NC.device)[:, None]
    ranked_NC = torch.where(rank_N1 < num_present_C, PRESENT, UNKNOWN)
    is_low_NC = (rank_N1 >= num_unknown_C - num_absent_C) & (rank_N1 < num_unknown_C)
    ranked_NC = ranked_NC.masked_fill(is_low_NC, ABSENT).to(torch.int8)
    return torch.zeros_like(ranked_NC).scatter_(0, order_NC, ranked_NC)


def _whole(numbers_C: Tensor) -> Tensor:
    """Rounded down, but not by its last binary digit: 0.29 * 100 is 29. What is not a number is 0."""
    return numbers_C.nan_to_num().mul(1e6).round().div(1e6).floor().long()
