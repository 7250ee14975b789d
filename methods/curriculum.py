"""Learning a Deep ConvNet for Multi-Label Classification with Partial Labels (Durand et al., CVPR 2019): curriculum.

After some epochs on the known labels, the model labels the unknown entries that it is sure of and trains on these
too; every round starts again from the known labels, which never change.

Differs from the paper: one uninterrupted training with a round at the start of epochs 5, 10 and 15 of 20, on global
average pooling and a linear layer (no graph network); the thresholds are the paper's as far as they are known
second-hand; the two strategies that need several models or dropout (ensemble, Bayesian) are left out. Rounds see the
test transform. With few known labels nearly everything it is sure of is absent, the known weakness of the idea.
"""

from __future__ import annotations

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
    Task,
    parameter,
    register_method,
)
from mlrpl_bench.models.layers import PooledClassifier
from mlrpl_bench.models.losses import normalised_bce

STRATEGIES = ("score", "proportion", "positives")


@register_method(
    "curriculum",
    idea="The model labels the unknown entries that it is sure of and trains on them, anew every few epochs.",
    paper="https://arxiv.org/abs/1902.09720",
    differs="no graph network; three rounds within one training; thresholds known second-hand",
)
class Curriculum(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        strategy: str = parameter(
            "score",
            "what is labelled: |logit| above a threshold, the surest proportion, or likely positives",
            choices=STRATEGIES,
        )
        threshold: float = parameter(2.0, "smallest |logit| of strategy score", low=0)
        proportion: float = parameter(0.8, "share of the unknown labels of strategy proportion", low=0, high=1)
        positive_threshold: float = parameter(5.0, "smallest logit of strategy positives", low=0)
        start: int = parameter(5, "epoch of the first round, of 20", low=0, high=19)
        interval: int = parameter(5, "epochs between two rounds, of 20", low=1, high=20)
        slope: float = parameter(-4.45, "a in an image's weight a p^b + c, p the share of its labels in use")
        exponent: float = parameter(1.0, "b in it")
        offset: float = parameter(5.45, "c in it")

    recipe = Recipe()

    labels_NC: Tensor
    filled_shares: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.classifier = PooledClassifier(backbone.channels, len(task.categories))
        self.register_buffer("labels_NC", task.labels_NC.to(torch.int8, copy=True))  # known and filled in
        self.register_buffer("filled_shares", torch.zeros(2))  # of the unknown labels: present, absent
        self._observed: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.classifier(self.trained(frozen_BDHW))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        labels_BC = torch.where(batch.labels_BC == UNKNOWN, self.labels_NC[batch.index_B], batch.labels_BC)
        logits_BC = self(batch.frozen_BDHW)
        loss = normalised_bce(logits_BC, labels_BC, options.slope, options.exponent, options.offset)
        return {"normalised_bce": loss}

    def passes(self, progress: Progress) -> bool:
        return progress.due(self.hyperparameters.start, self.hyperparameters.interval)

    def observe(self, batch: Batch) -> None:
        self._observed.append((batch.index_B, batch.labels_BC, self(batch.frozen_BDHW).float()))

    def end_pass(self, generator: torch.Generator) -> None:
        index_N, known_NC, logits_NC = (torch.cat(parts) for parts in zip(*self._observed, strict=True))
        self._observed.clear()
        unknown_NC = known_NC == UNKNOWN
        filled_NC = torch.where(logits_NC > 0, PRESENT, ABSENT).to(torch.int8)
        filled_NC = torch.where(self._sure(logits_NC, unknown_NC), filled_NC, UNKNOWN)
        self.labels_NC[index_N] = torch.where(unknown_NC, filled_NC, known_NC)
        for place, state in enumerate((PRESENT, ABSENT)):
            self.filled_shares[place] = (unknown_NC & (filled_NC == state)).sum() / unknown_NC.sum().clamp(min=1)

    def _sure(self, logits_NC: Tensor, unknown_NC: Tensor) -> Tensor:
        """Return the entries that the strategy labels by the model, bool (N, C); known entries do not matter."""
        options = self.hyperparameters
        if options.strategy == "score":
            return logits_NC.abs() > options.threshold
        if options.strategy == "positives":
            return logits_NC > options.positive_threshold
        count = round(options.proportion * int(unknown_NC.sum()))
        order_F = logits_NC.abs().masked_fill(~unknown_NC, -1).flatten().argsort(descending=True, stable=True)
        sure_F = torch.zeros_like(unknown_NC).flatten()
        sure_F[order_F[:count]] = True
        return sure_F.view_as(unknown_NC)

    def scalars(self) -> dict[str, float | Tensor]:
        return {"filled_present_share": self.filled_shares[0], "filled_absent_share": self.filled_shares[1]}

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        return self.labels_NC.cpu().numpy()
