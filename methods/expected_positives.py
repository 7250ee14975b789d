"""Multi-Label Learning from Single Positive Labels (Cole et al., CVPR 2021): the right number of positives.

Unknown labels are left out, but the images of a batch must have, on average, the number of predicted positives that
the data are expected to have (EPR). ROLE also estimates the label of every training entry: a table of logits is
trained beside the network, under the same two rules, and each is a soft target of the other.

Differs from the paper: on SSGRL's network; there are known negatives here, which count in both methods as known
positives do; the expected number is estimated from the known labels. As in its code, the table's optimiser is
dense, so that momentum moves the rows of images that are not in the batch, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlrpl_bench import (
    ABSENT,
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
from mlrpl_bench.models.layers import EpochMeans, SemanticGraphMethod
from mlrpl_bench.models.losses import clipped_log_sigmoid, part_of_mean


@register_method(
    "epr",
    idea="Leaves unknown labels out, but asks for the expected number of positives per image.",
    paper="https://arxiv.org/abs/2106.09708",
    differs="SSGRL's network; known negatives count; the expected number comes from the known labels and their ratio",
)
class ExpectedPositives(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        expected: float | None = parameter(
            None, "positives per image; none for known positives per image / known ratio", low=0
        )

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        known_positives = (task.labels_NC == PRESENT).sum().item() / len(task.labels_NC)
        expected = hyperparameters.expected
        self.expected = known_positives / task.known_ratio if expected is None else expected
        self.means = EpochMeans("predicted_positives")

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC = self(batch.frozen_BDHW)
        self.means.update(progress.step, predicted_positives=positives_per_image(logits_BC))
        return {
            "known": known_loss(logits_BC, batch.labels_BC),
            "surplus": surplus_penalty(logits_BC, self.expected),
        }

    def scalars(self) -> dict[str, float | Tensor]:
        return {"expected_positives": self.expected, **self.means.scalars()}


@register_method(
    "role",
    idea="Trains the network and a table of label estimates on each other, both with the expected number of positives.",
    paper="https://arxiv.org/abs/2106.09708",
    differs="SSGRL's network; known negatives count; the expected number comes from the known labels and their ratio; "
    "no weight decay on the table",
)
class RegularisedOnlineLabelEstimation(ExpectedPositives):
    @dataclass(frozen=True)
    class Hyperparameters(ExpectedPositives.Hyperparameters):
        table_rate: float = parameter(10.0, "learning rate of the table, relative to the network's", low=0)
        certainty: float = parameter(0.995, "initial estimate of known positives", low=0.5, high=0.9999)
        doubt: float = parameter(0.6, "largest initial estimate of unknown labels", low=0.5, high=0.9999)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.means = EpochMeans("predicted_positives", "estimated_positives")
        known_NC = task.labels_NC.float() * _logit(hyperparameters.certainty)
        unknown_NC = (2 * torch.rand(task.labels_NC.shape) - 1) * _logit(hyperparameters.doubt)
        # Drawn after the network, whose initial weights are then those of every method on it.
        self.estimates_NC = nn.Parameter(torch.where(task.labels_NC == UNKNOWN, unknown_NC, known_NC))

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        network = [p for p in self.parameters() if p.requires_grad and p is not self.estimates_NC]
        # Weight decay would pull every estimate to one half at every step, and each is trained once an epoch.
        table = ParameterGroup([self.estimates_NC], self.hyperparameters.table_rate, weight_decay=0)
        return [ParameterGroup(network), table]

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC, estimates_BC = self(batch.frozen_BDHW), self.estimates_NC[batch.index_B]
        self.means.update(
            progress.step,
            predicted_positives=positives_per_image(logits_BC),
            estimated_positives=positives_per_image(estimates_BC),
        )
        both = (logits_BC, estimates_BC)
        return {
            "known": torch.stack([known_loss(x_BC, batch.labels_BC) for x_BC in both]).mean(),
            "surplus": torch.stack([surplus_penalty(x_BC, self.expected) for x_BC in both]).mean(),
            "network_to_table": cross_entropy(logits_BC, estimates_BC) / 2,
            "table_to_network": cross_entropy(estimates_BC, logits_BC) / 2,
        }

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        """The estimates, rounded; training uses them as they are."""
        return torch.where(self.estimates_NC >= 0, PRESENT, ABSENT).to(torch.int8).cpu().numpy()


def known_loss(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """Clipped binary cross-entropy of the known entries, as a part of the mean over all entries."""
    signs_BC = torch.where(labels_BC == PRESENT, 1, -1)
    return part_of_mean(-clipped_log_sigmoid(signs_BC * logits_BC), labels_BC != UNKNOWN)


def positives_per_image(logits_BC: Tensor) -> Tensor:
    """The number of positives that the probabilities of a batch add up to, per image."""
    return torch.sigmoid(logits_BC.float()).sum(dim=1).mean()


def surplus_penalty(logits_BC: Tensor, expected: float) -> Tensor:
    """The squared distance from the expected number of positives per image, relative to the number of categories."""
    return ((positives_per_image(logits_BC) - expected) / logits_BC.shape[1]).square()


def cross_entropy(logits_BC: Tensor, target_logits_BC: Tensor) -> Tensor:
    """Clipped binary cross-entropy to soft targets that receive no gradient, averaged over all entries."""
    targets_BC = torch.sigmoid(target_logits_BC.detach().float())
    losses_BC = targets_BC * clipped_log_sigmoid(logits_BC) + (1 - targets_BC) * clipped_log_sigmoid(-logits_BC)
    return -losses_BC.mean()


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
