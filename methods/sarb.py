"""Semantic-Aware Representation Blending for Multi-Label Image Recognition with Partial Labels (Pu et al., AAAI 2022).

On SSGRL's network, an unknown label is supplied by blending: the category's feature is mixed with the feature of
another image where the category is known to be present (instance-level, ILRB), or with a prototype of the category
(prototype-level, PLRB). The mixed feature is then as present as the share of what was mixed in.

Differs from the paper: the contrastive loss is averaged over a selection of pairs of known labels and warms up over
the first epoch, as in its code. Differs from the code: prototypes come from the test transform and every image; each
image draws its own (``prototype_per_batch`` gives the code's); K-means starts once, from a seed; a category with
fewer known positives than prototypes has fewer of them, and none takes no part; an image without an unknown label
stays as it is (the code overwrites the label of its first category).

`sarb_sam` collects features by semantic attention (ADD-GCN, Ye et al., ECCV 2020) instead of semantic decoupling;
nothing else changes. The paper says no more about this row: here the attention's weights are divided by the number
of positions (``normalisation``), and the attention has no loss of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrpl_bench import Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import (
    ATTENTIONS,
    NORMALISATIONS,
    Blending,
    BlendingHyperparameters,
    Prototypes,
    SemanticGraphMethod,
    Version,
    contrast,
    supervise,
    unknown_choice,
)


@register_method(
    "sarb",
    idea="Supplies unknown labels by blending features with another image's, and with prototypes, of the category.",
    paper="https://arxiv.org/abs/2203.02172",
    published="SARB",
    differs="contrastive loss as in the code; each image draws its prototype; guards for rare categories",
    default=True,
)
@register_method(
    "sarb_sam",
    idea="SARB with features collected by semantic attention instead of semantic decoupling.",
    differs="attention weights divided by the number of positions, without a loss of their own; contrastive loss as in "
    "the code; each image draws its prototype; guards for rare categories",
    attention="attention",
)
@register_method(
    "ilrb",
    idea="The instance-level half of SARB: blends with another image of the batch, without the contrastive loss.",
    published="SARB ILRB-only (learned alpha)",
    differs="without the contrastive loss (whether the paper's row has it is not said)",
    prototype=False,
    contrastive=0.0,
)
@register_method(
    "ilrb_fixed",
    idea="ILRB with alpha fixed at 0.5.",
    differs="without the contrastive loss (whether the paper's row has it is not said)",
    prototype=False,
    contrastive=0.0,
    learned=False,
)
@register_method(
    "plrb",
    idea="The prototype-level half of SARB: blends with prototypes of categories.",
    published="SARB PLRB-only (learned beta)",
    differs="contrastive loss as in the code; each image draws its prototype; guards for rare categories",
    instance=False,
)
@register_method(
    "plrb_fixed",
    idea="PLRB with beta fixed at 0.5.",
    differs="contrastive loss as in the code; each image draws its prototype; guards for rare categories",
    instance=False,
    learned=False,
)
@register_method(
    "plrb_no_contrastive",
    idea="PLRB without the contrastive loss.",
    differs="each image draws its prototype; guards for rare categories",
    instance=False,
    contrastive=0.0,
)
class SARB(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(BlendingHyperparameters):
        instance: bool = parameter(True, "blend with another image of the batch (ILRB)")
        prototype: bool = parameter(True, "blend with prototypes (PLRB)")
        prototypes: int = parameter(10, "prototypes per category", low=1)
        prototype_per_batch: bool = parameter(False, "draw one prototype index for the whole batch")
        samples: int = parameter(20_000, "largest number of features clustered per category", low=1)
        attention: str = parameter(
            "decoupling", "collect features by semantic decoupling or semantic attention", choices=ATTENTIONS
        )
        normalisation: str = parameter(
            "mean", "what semantic attention's weights are divided by: positions, nothing, sum", choices=NORMALISATIONS
        )

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(
            backbone,
            task,
            hyperparameters,
            attention=hyperparameters.attention,
            normalisation=hyperparameters.normalisation,
        )
        options = hyperparameters
        self.blending = Blending(options.instance, options.prototype, options.learned)
        if options.prototype:
            self.prototypes = Prototypes(
                len(task.categories), options.prototypes, backbone.feature_width, options.samples
            )

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        features_BCD = self.network.features(self.trained(batch.frozen_BDHW))
        versions = {"partial_bce": Version(features_BCD, batch.labels_BC)}
        if progress.started(options.start):
            prototypes = self._prototypes(batch) if options.prototype else None
            versions |= self.blending(features_BCD, batch.labels_BC, progress.step, prototypes)
        return supervise(self.network.head, versions) | contrast(
            features_BCD, batch, progress, options.contrastive, options.absent_pairs
        )

    def _prototypes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which entries take a prototype, and which one each image takes."""
        mixed_BC, index_B = prototype_choice(
            batch.labels_BC, self.prototypes.num_C, batch.generator, self.hyperparameters.prototype_per_batch
        )
        # Images that draw nothing have a row of False: argmax gives them category 0, and blend ignores it.
        return mixed_BC, self.prototypes.centres_CKD[mixed_BC.int().argmax(dim=1), index_B][:, None]

    def passes(self, progress: Progress) -> bool:
        options = self.hyperparameters
        return options.prototype and progress.due(options.start, options.interval)

    def observe(self, batch: Batch) -> None:
        self.prototypes.observe(self.network.features(self.trained(batch.frozen_BDHW)), batch.labels_BC)

    def end_pass(self, generator: torch.Generator) -> None:
        self.prototypes.cluster(generator)

    def scalars(self) -> dict[str, float | Tensor]:
        return self.blending.scalars()


def prototype_choice(
    labels_BC: Tensor, num_prototypes_C: Tensor, generator: torch.Generator, per_batch: bool = False
) -> tuple[Tensor, Tensor]:
    """Which entry of each image PLRB mixes, and the index of the prototype that it takes.

    Each image draws one of its unknown categories that have prototypes, evenly; an image without any draws none.

    Args:
        per_batch: all images share one draw of the prototype (scaled to the number that their category has).

    Returns:
        bool (B, C) with at most one True a row, and int64 (B,).
    """
    mixed_BC = unknown_choice(labels_BC, num_prototypes_C > 0, generator)
    num_B = num_prototypes_C[mixed_BC.int().argmax(dim=1)]
    draw = torch.rand(1 if per_batch else len(labels_BC), generator=generator, device=labels_BC.device)
    # The product of a draw just below 1 can round up to the number itself.
    index_B = torch.minimum((draw * num_B).long(), num_B - 1).clamp(min=0)
    return mixed_BC, index_B
