"""Heterogeneous Semantic Transfer for Multi-Label Recognition with Partial Labels (Chen et al., IJCV 2024).

SST with learned thresholds, and with prototypes of categories instead of a bank of features: an unknown label is
filled in where the mean co-occurrence with the image's known categories, or the mean likeness to the category's
prototypes, exceeds its threshold.

The code has oddities that are kept: what exceeds the threshold, a number in [0, 1], is taken for a logit and
trained towards the known labels; the thresholds start at 1, where hardly anything exceeds them. The one for
likeness then has no gradient but that of the weight decay, by which Adam lowers it by about a learning rate a step;
the other one also learns from images with one known positive, whose own support is 1. ``threshold_rate`` moves them
faster.

Differs from the code: the loss on prototypes pulls known positives towards them and pushes known negatives away
(the code has the opposite sign, and counts unknown labels; ``literal_prototype_loss`` gives that); thresholds stay in
[0, 1]; prototypes as in SARB here; the batch is every method's instead of 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mlrpl_bench import UNKNOWN, Backbone, Batch, ParameterGroup, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import Prototypes, SemanticTransferMethod, fill, mean_cosine, support
from mlrpl_bench.models.losses import partial_bce


@register_method(
    "hst",
    idea="Fills in unknown labels by co-occurrence and by likeness to prototypes, above learned thresholds.",
    paper="https://arxiv.org/abs/2205.11131",
    published="HST",
    differs="as its code, but the loss on prototypes has the sensible sign; thresholds clamped to [0, 1]; shared batch",
)
class HST(SemanticTransferMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticTransferMethod.Hyperparameters):
        interval: int = parameter(5, "epochs between two rounds of K-means, of the paper's 20", low=1, high=20)
        prototypes: int = parameter(10, "prototypes per category", low=1)
        samples: int = parameter(20_000, "largest number of features clustered per category", low=1)
        first_threshold: float = parameter(1.0, "where both thresholds start", low=0, high=1)
        threshold_rate: float = parameter(1.0, "learning rate of the thresholds relative to the others'", low=0)
        score: float = parameter(0.1, "weight of the losses on what exceeds the thresholds", low=0)
        prototype_contrast: float = parameter(0.05, "weight of the loss on prototypes", low=0)
        literal_prototype_loss: bool = parameter(False, "the loss on prototypes with the sign that the code has")

    may_lack_gradient: ClassVar[tuple[str, ...]] = ("inter_threshold",)
    """Until something exceeds it, this parameter moves by weight decay alone."""

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        options = hyperparameters
        self.intra_threshold = nn.Parameter(torch.tensor(options.first_threshold))
        self.inter_threshold = nn.Parameter(torch.tensor(options.first_threshold))
        self.prototypes = Prototypes(len(task.categories), options.prototypes, backbone.feature_width, options.samples)

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        thresholds = [self.intra_threshold, self.inter_threshold]
        others = [p for p in self.parameters() if p.requires_grad and all(p is not own for own in thresholds)]
        return [ParameterGroup(others), ParameterGroup(thresholds, self.hyperparameters.threshold_rate)]

    def transfer(
        self, features_BCD: Tensor, logits_BC: Tensor, pair_logits_BP: Tensor, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        options, labels_BC = self.hyperparameters, batch.labels_BC
        if not progress.started(options.start):
            return {}
        likeness_BC = mean_cosine(features_BCD, self.prototypes.centres_CKD, self.prototypes.num_C)
        excess = {
            "intra": clamped(support(pair_logits_BP, labels_BC) - self.intra_threshold),
            "inter": clamped(likeness_BC - self.inter_threshold),
        }
        filled = {name: fill(labels_BC, excess_BC > 0) for name, excess_BC in excess.items()}
        self.note(batch, progress, filled["intra"], filled["inter"])
        terms = {}
        for name, excess_BC in excess.items():
            terms[name] = partial_bce(logits_BC, filled[name])
            terms[f"{name}_score"] = options.score * partial_bce(excess_BC, labels_BC)
        pull = prototype_loss(likeness_BC, labels_BC, self.prototypes.num_C > 0, options.literal_prototype_loss)
        return {**terms, "prototype": options.prototype_contrast * pull}

    def passes(self, progress: Progress) -> bool:
        return progress.due(self.hyperparameters.start, self.hyperparameters.interval)

    def observe(self, batch: Batch) -> None:
        self.prototypes.observe(self.network.features(self.trained(batch.frozen_BDHW)), batch.labels_BC)

    def end_pass(self, generator: torch.Generator) -> None:
        self.prototypes.cluster(generator)

    def after_step(self) -> None:
        for threshold in (self.intra_threshold, self.inter_threshold):
            threshold.data.clamp_(0, 1)

    def scalars(self) -> dict[str, float | Tensor]:
        thresholds = {"intra_threshold": self.intra_threshold, "inter_threshold": self.inter_threshold}
        return {**{name: value.detach() for name, value in thresholds.items()}, **self.filled.scalars()}


def clamped(values_BC: Tensor) -> Tensor:
    """The values clamped to [0, 1], with a gradient at both ends.

    That is where the threshold for co-occurrence starts to learn. `torch.clamp` had a gradient there when HST was
    written, and has none in PyTorch 2.15.
    """
    inside_BC = (values_BC >= 0) & (values_BC <= 1)
    return torch.where(inside_BC, values_BC, values_BC.detach().clamp(0, 1))


def prototype_loss(likeness_BC: Tensor, labels_BC: Tensor, exist_C: Tensor, literal: bool = False) -> Tensor:
    """Known positives should be like their category's prototypes, known negatives unlike them.

    The mean of 1 - y s over the known labels y of categories with prototypes, s being the likeness; 0 without any.
    Literally as in the code it is the mean of 1 + y s over all entries, which pushes positives away.
    """
    signed_BC = labels_BC.to(likeness_BC.dtype) * likeness_BC
    if literal:
        return (1 + signed_BC).mean()
    counted_BC = (labels_BC != UNKNOWN) & exist_C
    return ((1 - signed_BC) * counted_BC).sum() / counted_BC.sum().clamp(min=1)
