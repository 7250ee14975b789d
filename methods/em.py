"""Acknowledging the Unknown for Multi-label Learning with Single Positive Labels (Zhou et al., ECCV 2022).

Unknown labels are taken for neither state: their scores are pushed towards a half, where their entropy is largest
(EM). From the middle of training on, the least likely unknown entries of each category get the score that they have
at that moment as a soft label, for good (asymmetric pseudo-labelling, APL). As in the code, all soft labels are
negatives.

Differs from the paper: on SSGRL's network; known negatives count as known positives do; COCO's constants on every
data set (``alpha``, ``beta``); epochs 5 to 9 of its 10 are epochs 10, 12, ... 18 of 20, and scores come from the test
transform. Differs from the code: the round after the last epoch, which nothing is trained on, is left out; a
training set of one batch is labelled like any other. Its authors read F1 at a threshold of 0.75.
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
from mlrpl_bench.models.losses import part_of_mean

EPSILON = 1e-5
"""Added to probabilities in logarithms. A part of the method: what is certain and wrong costs at most 11.5."""

NO_LABEL = -1.0
"""In the table of soft labels. 0 is a label."""


@register_method(
    "em",
    idea="Pushes the scores of unknown labels towards a half, where their entropy is largest.",
    paper="https://arxiv.org/abs/2203.16219",
    differs="SSGRL's network; known negatives count; COCO's constant (alpha) everywhere; the authors read F1 at a "
    "threshold of 0.75, so OF1 and CF1 at 0.5 say little",
)
class EntropyMaximisation(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        alpha: float = parameter(0.1, "weight of the unknown entries' entropy (VOC 2012: 0.2, CUB: 0.01)", low=0)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC, unknown_BC = self(batch.frozen_BDHW).float(), batch.labels_BC == UNKNOWN
        return self._terms(logits_BC, batch.labels_BC, unknown_BC)

    def _terms(self, logits_BC: Tensor, labels_BC: Tensor, maximised_BC: Tensor) -> dict[str, Tensor]:
        """The loss of the known entries, and the entropy of some unknown ones, negative."""
        known_BC = soft_loss(logits_BC, (labels_BC == PRESENT).float())
        return {
            "known": part_of_mean(known_BC, labels_BC != UNKNOWN),
            "negative_entropy": part_of_mean(-self.hyperparameters.alpha * entropy(logits_BC), maximised_BC),
        }


@register_method(
    "em_apl",
    idea="As em; from the middle on, each category's least likely unknown entries keep their scores as soft labels.",
    paper="https://arxiv.org/abs/2203.16219",
    differs="SSGRL's network; known negatives count; COCO's constants (alpha, beta) everywhere; rounds of labelling on "
    "20 epochs instead of 10, their scores from the test transform; the authors read F1 at a threshold of 0.75, so OF1 "
    "and CF1 at 0.5 say little",
)
class AsymmetricPseudoLabelling(EntropyMaximisation):
    @dataclass(frozen=True)
    class Hyperparameters(EntropyMaximisation.Hyperparameters):
        beta: float = parameter(0.9, "weight of soft-labelled entries (VOC 2012: 0.02, NUS-WIDE: 0.2, CUB: 0.4)", low=0)
        proportion: float = parameter(
            0.9, "share of each category's unknown entries labelled in the end", low=0, high=1
        )
        start: int = parameter(10, "epoch of the first round, of 20", low=0, high=19)
        interval: int = parameter(2, "epochs between two rounds, of 20", low=1, high=20)

    labels_NC: Tensor
    soft_NC: Tensor
    rounds_done: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.register_buffer("labels_NC", task.labels_NC.clone())  # known
        self.register_buffer("soft_NC", torch.full(task.labels_NC.shape, NO_LABEL))
        self.register_buffer("rounds_done", torch.zeros((), dtype=torch.int64))
        self._rounds_due = 0
        self._observed: list[tuple[Tensor, Tensor]] = []

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC, unknown_BC = self(batch.frozen_BDHW).float(), batch.labels_BC == UNKNOWN
        soft_BC = self.soft_NC[batch.index_B]
        labelled_BC = unknown_BC & (soft_BC != NO_LABEL)
        pseudo_BC = self.hyperparameters.beta * soft_loss(logits_BC, soft_BC)
        terms = self._terms(logits_BC, batch.labels_BC, unknown_BC & ~labelled_BC)
        return {**terms, "soft_labels": part_of_mean(pseudo_BC, labelled_BC)}

    def passes(self, progress: Progress) -> bool:
        # In a run of few epochs several rounds fall on one: they are made together, so that the number of labels in
        # the end is the same.
        self._rounds_due = sum(progress.started(epoch) for epoch in self._epochs_of_rounds())
        return self._rounds_due > int(self.rounds_done)

    def observe(self, batch: Batch) -> None:
        self._observed.append((batch.index_B, self(batch.frozen_BDHW).float()))

    def end_pass(self, generator: torch.Generator) -> None:
        index_N, logits_NC = (torch.cat(parts) for parts in zip(*self._observed, strict=True))
        self._observed.clear()
        candidates_NC = ((self.labels_NC == UNKNOWN) & (self.soft_NC == NO_LABEL))[index_N]
        num_rounds = self._rounds_due - int(self.rounds_done)
        chosen_NC = lowest(logits_NC, candidates_NC, num_rounds * self.labels_per_round_C())
        self.soft_NC[index_N] = torch.where(chosen_NC, logits_NC.sigmoid(), self.soft_NC[index_N])
        self.rounds_done.fill_(self._rounds_due)

    def labels_per_round_C(self) -> Tensor:
        """How many entries of each category a round labels; 0 for a category with few unknown ones."""
        share = self.hyperparameters.proportion / len(self._epochs_of_rounds())
        unknown_C = (self.labels_NC == UNKNOWN).sum(dim=0)
        # Rounded first: a whole number must not lose one to its last binary digit.
        return (share * unknown_C.double()).mul(1e6).round().div(1e6).floor().long()

    def _epochs_of_rounds(self) -> range:
        """The rounds' epochs, of 20."""
        return range(self.hyperparameters.start, 20, self.hyperparameters.interval)

    def scalars(self) -> dict[str, float | Tensor]:
        labelled_NC = self.soft_NC != NO_LABEL
        num_labelled, num_unknown = labelled_NC.sum(), (self.labels_NC == UNKNOWN).sum()
        return {
            "soft_labelled_share": num_labelled / num_unknown.clamp(min=1),
            "mean_soft_label": self.soft_NC[labelled_NC].sum() / num_labelled.clamp(min=1),
        }

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        """The known labels, and absent where a soft label is; training uses its value."""
        return torch.where(self.soft_NC == NO_LABEL, self.labels_NC, ABSENT).to(torch.int8).cpu().numpy()


def soft_loss(logits_BC: Tensor, targets_BC: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Cross-entropy to probabilities, which receive no gradient; with a small number added in the logarithms."""
    present_BC, absent_BC = torch.sigmoid(logits_BC), torch.sigmoid(-logits_BC)
    return -(targets_BC * (present_BC + epsilon).log() + (1 - targets_BC) * (absent_BC + epsilon).log())


def entropy(logits_BC: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Of the scores as probabilities of two states; log 2 where the logit is 0, but for epsilon."""
    present_BC, absent_BC = torch.sigmoid(logits_BC), torch.sigmoid(-logits_BC)
    return -(present_BC * (present_BC + epsilon).log() + absent_BC * (absent_BC + epsilon).log())


def lowest(keys_NC: Tensor, candidates_NC: Tensor, count_C: Tensor) -> Tensor:
    """Mark each category's candidates with the lowest keys, as many as asked for; of equal ones the first rows."""
    order_NC = keys_NC.masked_fill(~candidates_NC, math.inf).argsort(dim=0, stable=True)
    wanted_NC = torch.arange(len(keys_NC), device=keys_NC.device)[:, None] < count_C
    return torch.zeros_like(candidates_NC).scatter_(0, order_NC, wanted_NC) & candidates_NC
