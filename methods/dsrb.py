"""Dual-Perspective Semantic-Aware Representation Blending (Pu et al., Expert Systems with Applications, 2024).

SARB with prototypes by place: one for each quadrant of the image, the mean of known positives that were seen there.
An unknown category is blended with a prototype from another quadrant than the one where its feature looks, so that
the blend combines the category's looks at two places.

Differs from the paper, of which the published code is a part and does not run: blending maps of the category and
adding up their positions, as the code means to, is the same as blending the sums, so features are blended as in
SARB; for the same reason a prototype is a feature, not a map. The code averages an additional map of zeros into
each prototype, and fails where a category has no known positive; here there is no such map, and that category takes
no part. Prototypes come from the test transform and every image, those beyond `samples` are left out at random. An
image with fewer unknown labels than it should blend blends what it has. The fuller description of the paper, with
blending at several granularities, could not be checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlrpl_bench import Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import (
    Blending,
    BlendingHyperparameters,
    KnownPositives,
    SemanticGraphMethod,
    Version,
    contrast,
    supervise,
    unknown_choice,
    weighted_sum,
)

NUM_QUADRANTS = 4


@register_method(
    "dsrb",
    idea="SARB with one prototype for each quadrant of the image; features take one from where they do not look.",
    paper="https://arxiv.org/abs/2205.13092",
    differs="after its code, which does not run; without a map of zeros in each prototype; guards for rare categories",
)
class DSRB(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(BlendingHyperparameters):
        categories: int = parameter(1, "unknown categories of an image that take a prototype", low=1)
        samples: int = parameter(100, "largest number of features averaged per category and quadrant", low=1)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.blending = Blending(instance=True, prototype=True, learned=hyperparameters.learned)
        self.prototypes = QuadrantPrototypes(len(task.categories), backbone.feature_width, hyperparameters.samples)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        features_BCD, quadrants_BC = self._features(batch)
        versions = {"partial_bce": Version(features_BCD, batch.labels_BC)}
        if progress.started(options.start):
            prototypes = self.prototypes(batch.labels_BC, quadrants_BC, batch.generator, options.categories)
            versions |= self.blending(features_BCD, batch.labels_BC, progress.step, prototypes)
        return supervise(self.network.head, versions) | contrast(
            features_BCD, batch, progress, options.contrastive, options.absent_pairs
        )

    def _features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Category features, and the quadrant where each of them looks."""
        maps_BDHW = self.network.trunk(self.trained(batch.frozen_BDHW))
        weights_BCHW = self.network.decoupling.attention(maps_BDHW, self.network.words_CE)
        return weighted_sum(weights_BCHW, maps_BDHW), strongest_quadrant(weights_BCHW.detach(), maps_BDHW.detach())

    def passes(self, progress: Progress) -> bool:
        return progress.due(self.hyperparameters.start, self.hyperparameters.interval)

    def observe(self, batch: Batch) -> None:
        self.prototypes.observe(*self._features(batch), batch.labels_BC)

    def end_pass(self, generator: torch.Generator) -> None:
        self.prototypes.average(generator)

    def scalars(self) -> dict[str, float | Tensor]:
        return self.blending.scalars()


class QuadrantPrototypes(nn.Module):
    """A prototype for each category and quadrant: the mean feature of known positives that look there.

    A quadrant in which none does has the mean of all known positives of the category.

    Args:
        num_categories: C.
        width: D.
        num_samples: the largest number of features that are averaged per category and quadrant.
    """

    means_CQD: Tensor
    exist_C: Tensor

    def __init__(self, num_categories: int, width: int, num_samples: int) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.register_buffer("means_CQD", torch.zeros(num_categories, NUM_QUADRANTS, width))
        self.register_buffer("exist_C", torch.zeros(num_categories, dtype=torch.bool))
        self._observed = KnownPositives()

    def forward(
        self, labels_BC: Tensor, quadrants_BC: Tensor, generator: torch.Generator, count: int
    ) -> tuple[Tensor, Tensor]:
        """Which entries take a prototype, `count` an image, and each entry's one from another quadrant (B, C, D)."""
        mixed_BC = unknown_choice(labels_BC, self.exist_C, generator, count)
        turns_BC = torch.randint(1, NUM_QUADRANTS, labels_BC.shape, generator=generator, device=labels_BC.device)
        others_BC = (quadrants_BC + turns_BC) % NUM_QUADRANTS
        return mixed_BC, self.means_CQD[torch.arange(len(self.means_CQD), device=others_BC.device), others_BC]

    def observe(self, features_BCD: Tensor, quadrants_BC: Tensor, labels_BC: Tensor) -> None:
        """One batch of a pass over the training set."""
        self._observed.add(labels_BC, features_BCD, quadrants_BC)

    def average(self, generator: torch.Generator) -> None:
        """The pass is complete: replace all prototypes."""
        categories_S, features_SD, quadrants_S = self._observed.take()
        order_S = torch.randperm(len(categories_S), generator=generator)
        categories_S, features_SD, quadrants_S = categories_S[order_S], features_SD[order_S], quadrants_S[order_S]
        self.means_CQD.zero_()
        for category, means_QD in enumerate(self.means_CQD):
            own_S = categories_S == category
            self.exist_C[category] = bool(own_S.any())
            if not own_S.any():
                continue
            means_QD[:] = features_SD[own_S].mean(dim=0)
            for quadrant in range(NUM_QUADRANTS):
                there_SD = features_SD[own_S & (quadrants_S == quadrant)]
                if len(there_SD):
                    means_QD[quadrant] = there_SD[: self.num_samples].mean(dim=0)


def strongest_quadrant(weights_BCHW: Tensor, maps_BDHW: Tensor) -> Tensor:
    """The quadrant of the position that adds most to a category's feature: 0 1 above 2 3, int64 (B, C).

    A position adds its weight times the sum of its channels. Of an odd number of rows (columns) the middle one
    belongs to the lower (right) half.
    """
    height, width = maps_BDHW.shape[-2:]
    positions_BC = (weights_BCHW * maps_BDHW.float().sum(dim=1, keepdim=True)).flatten(2).argmax(dim=-1)
    lower_BC, right_BC = positions_BC // width >= height // 2, positions_BC % width >= width // 2
    return 2 * lower_BC.long() + right_BC.long()
