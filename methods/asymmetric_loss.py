"""Asymmetric Loss (Ridnik et al., ICCV 2021), and Class-Aware Selective Loss (Ben-Baruch et al., CVPR 2022).

ASL's loss weighs easy negatives down more than easy positives, and forgets very easy ones; unknown labels are taken
for absent. CSL does so with a focus of their own, and leaves out those that may well be present: all of a category
that is common, and the most probable ones of the batch. How common a category is, unknown labels and all, is
estimated by a network trained on the known labels alone.

Differs from the papers: on SSGRL's network, averaged over the batch's entries instead of added up, with the shared
recipe: the last stage is trained instead of the whole network, from ImageNet-1k weights (CSL: 21k), without averaged
weights, cutout and RandAugment. CSL's estimates come from the network itself, as its mean scores over the training set
at the papers' fifth epoch, instead of from a temporary model; until then it leaves all unknown labels out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrpl_bench import PRESENT, UNKNOWN, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import EpochMeans, SemanticGraphMethod
from mlrpl_bench.models.losses import asymmetric_absent, asymmetric_present, largest, part_of_mean

ASSUMED, IGNORED, SELECTED = "absent", "ignored", "selected"


@register_method(
    "asl",
    idea="Takes unknown labels for absent ones, with a loss that forgets easy negatives.",
    paper="https://arxiv.org/abs/2009.14119",
    differs="SSGRL's network, last stage trained instead of all; a mean over the batch's entries instead of a sum; "
    "unknown labels are taken for absent; no averaged weights; no cutout or RandAugment",
)
@register_method(
    "csl",
    idea="Takes an unknown label for absent unless its category is common or its score is among the batch's highest.",
    paper="https://arxiv.org/abs/2110.10955",
    published="CSL",
    differs="SSGRL's network, last stage trained instead of all; a mean instead of a sum; class priors are the "
    "method's own mean scores at epoch index 5, after training on known labels alone, instead of a temporary model's; "
    "no ImageNet-21k weights; no averaged weights; no cutout or RandAugment",
    unknown=SELECTED,
    focus_absent=1.0,
    margin=0.0,
)
class AsymmetricLoss(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        unknown: str = parameter(
            ASSUMED,
            "what unknown labels are: absent, left out, or chosen between",
            choices=(ASSUMED, IGNORED, SELECTED),
        )
        focus_present: float = parameter(0.0, "exponent that weighs easy positives down", low=0)
        focus_absent: float = parameter(4.0, "exponent that weighs easy known negatives down", low=0)
        focus_unknown: float = parameter(4.0, "exponent that weighs easy assumed negatives down", low=0)
        margin: float = parameter(0.05, "taken off the scores of negatives", low=0, high=0.5)
        start: int = parameter(5, "selected: epoch of the class priors, of the paper's 20", low=0, high=19)
        prior_threshold: float = parameter(0.5, "selected: a category with a prior above is left out", low=0, high=1)
        ignored_per_image: int = parameter(5, "selected: highest scores left out, times the images of a batch", low=0)

    prior_C: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        if hyperparameters.unknown == SELECTED:
            self.register_buffer("prior_C", torch.zeros(len(task.categories)))
            self.means = EpochMeans("ignored_share")
        self._observed: list[Tensor] = []

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW).float()
        present_BC, unknown_BC = batch.labels_BC == PRESENT, batch.labels_BC == UNKNOWN
        assumed_BC = unknown_BC & ~self._ignored(logits_BC.detach(), unknown_BC, progress)
        positive_BC = asymmetric_present(logits_BC, options.focus_present)
        known_BC = torch.where(
            present_BC, positive_BC, asymmetric_absent(logits_BC, options.focus_absent, options.margin)
        )
        terms = {"known": part_of_mean(known_BC, ~unknown_BC)}
        if options.unknown == ASSUMED or (options.unknown == SELECTED and progress.started(options.start)):
            assumed_loss_BC = asymmetric_absent(logits_BC, options.focus_unknown, options.margin)
            terms["assumed_absent"] = part_of_mean(assumed_loss_BC, assumed_BC)
        return terms

    def _ignored(self, logits_BC: Tensor, unknown_BC: Tensor, progress: Progress) -> Tensor:
        """Which unknown labels are left out."""
        options = self.hyperparameters
        if options.unknown == ASSUMED:
            return torch.zeros_like(unknown_BC)
        if options.unknown == IGNORED or not progress.started(options.start):
            return unknown_BC
        likely_BC = largest(logits_BC, unknown_BC, options.ignored_per_image * len(logits_BC))
        ignored_BC = unknown_BC & (likely_BC | (self.prior_C > options.prior_threshold))
        self.means.update(progress.step, ignored_share=ignored_BC.float().mean())
        return ignored_BC

    def passes(self, progress: Progress) -> bool:
        return self.hyperparameters.unknown == SELECTED and progress.due(self.hyperparameters.start, every=20)

    def observe(self, batch: Batch) -> None:
        self._observed.append(torch.sigmoid(self(batch.frozen_BDHW).float()))

    def end_pass(self, generator: torch.Generator) -> None:
        self.prior_C.copy_(torch.cat(self._observed).mean(dim=0))
        self._observed.clear()

    def scalars(self) -> dict[str, float | Tensor]:
        if self.hyperparameters.unknown != SELECTED:
            return {}
        common = (self.prior_C > self.hyperparameters.prior_threshold).sum()
        return {**self.means.scalars(), "largest_prior": self.prior_C.max(), "categories_ignored": common}
