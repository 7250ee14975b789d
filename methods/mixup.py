"""Position-wise mixup, the baselines of Semantic-Aware Representation Blending (Pu et al., AAAI 2022).

Each image is mixed with another one of the batch, position by position and for all categories at once: as an image
(`ip_mixup`) or as the map before semantic decoupling (`fm_mixup`). Against SARB they tell what blending per category
is worth.

Differs from the paper: it has neither the law of the coefficient, nor what becomes of the labels, nor a schedule.
Here the coefficient is even over [0.5, 1], the loss is mixed (known labels of either image count, each with its
image's share), pairs and schedule are SARB's. A mixed image goes through the network in a batch of its own, so that
batch norms see mixed and plain images apart; their running averages see both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlrpl_bench import ABSENT, PRESENT, UNKNOWN, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import EpochMeans, SemanticGraphMethod, symmetric_beta
from mlrpl_bench.models.losses import partial_bce

LABEL_RULES = ("loss", "signed", "both_known", "either")
LEARNED_START = 0.75


@register_method(
    "ip_mixup",
    idea="SSGRL, also trained on pixel-wise mixtures of two images with the mixed loss of their known labels.",
    paper="https://arxiv.org/abs/2203.02172",
    published="IP-Mixup",
    differs="coefficient, label rule and schedule are not published and chosen here",
)
@register_method(
    "fm_mixup",
    idea="SSGRL, also trained on position-wise mixtures of two feature maps with the mixed loss of their known labels.",
    published="FM-Mixup",
    space="features",
)
class Mixup(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        space: str = parameter("image", "what is mixed", choices=("image", "features"))
        labels: str = parameter(
            "loss",
            "mix the losses of both images' labels; or the labels, signed; or only where both are known; or either's",
            choices=LABEL_RULES,
        )
        law: str = parameter(
            "beta", "law of the share of an image in its mixture", choices=("beta", "fixed", "learned")
        )
        concentration: float = parameter(1.0, "a of the law Beta(a, a)", low=0.01)
        share: float = parameter(0.5, "share of the law fixed", low=0, high=1)
        start: int = parameter(5, "first epoch with mixtures, of 20", low=0, high=19)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        if hyperparameters.law == "learned":
            # Both images of a pair are mixed, so that the loss is symmetric about 0.5: no gradient leads away from it.
            self.share = nn.Parameter(torch.tensor(LEARNED_START))
        self.means = EpochMeans("partner_share")

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        if not progress.started(options.start):
            return {"partial_bce": partial_bce(self.known_logits(batch), batch.labels_BC)}
        share = self._share(batch)
        self.means.update(progress.step, partner_share=1 - share)
        both = self._with_mixed_images if options.space == "image" else self._with_mixed_features
        logits_BC, mixed_BC = both(batch, share)
        return {
            "partial_bce": partial_bce(logits_BC, batch.labels_BC),
            "mixup": mixed_loss(mixed_BC, batch.labels_BC, share, options.labels),
        }

    def _with_mixed_images(self, batch: Batch, share: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the images and of their mixtures."""
        mixed_B3HW = mix(batch.images_B3HW, share)
        with torch.set_grad_enabled(mixed_B3HW.requires_grad):  # only for a learned share
            frozen_BDHW = self.backbone.frozen(mixed_B3HW)
        _, of_mixture_BC = read_by_losses(batch.labels_BC)
        return self.known_logits(batch), self.network(self.trained(frozen_BDHW), of_mixture_BC)

    def _with_mixed_features(self, batch: Batch, share: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the images and of the mixtures of their maps; the trunk runs once."""
        maps_BDHW = self.network.trunk(self.trained(batch.frozen_BDHW))
        maps_BDHW = torch.cat([maps_BDHW, mix(maps_BDHW, share)])
        features_BCD = self.network.decoupling(maps_BDHW, self.network.words_CE)
        return self.network.head(features_BCD, read_BC=torch.cat(read_by_losses(batch.labels_BC))).chunk(2)

    def _share(self, batch: Batch) -> Tensor:
        """What of an image stays in its mixture: a scalar, the same for the whole batch."""
        options = self.hyperparameters
        if options.law == "learned":
            return self.share
        if options.law == "fixed":
            return torch.full((), options.share, device=batch.labels_BC.device)
        share = symmetric_beta(options.concentration, batch.generator)
        return torch.maximum(share, 1 - share)

    def after_step(self) -> None:
        if self.hyperparameters.law == "learned":
            self.share.data.clamp_(0.5, 1)

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()


def read_by_losses(labels_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Which logits of the images and which of their mixtures a loss may read: known in the image, in either image."""
    known_BC = labels_BC != UNKNOWN
    return known_BC, known_BC | known_BC.flip(0)


def mix(values_B: Tensor, share: Tensor) -> Tensor:
    """A share of each image (or map) and the rest of its partner at the mirrored place of the batch."""
    return share * values_B + (1 - share) * values_B.flip(0)


def mixed_loss(logits_BC: Tensor, labels_BC: Tensor, share: Tensor, rule: str) -> Tensor:
    """The loss of mixtures. The rules differ in what they make of the two labels y and z of an entry.

    - ``loss``: cross-entropy to y and to z, with their shares; an unknown one drops out of its own term.
    - ``signed``: the number share * y + (1 - share) * z, as `partial_bce` reads it. Opposite labels at share 0.7
      then mean present with probability 0.4, and nothing at 0.5.
    - ``both_known``: the probability, present by share, where both are known; else nothing.
    - ``either``: present if one is; absent if both are; else nothing.
    """
    partner_BC = labels_BC.flip(0)
    if rule == "loss":
        return share * partial_bce(logits_BC, labels_BC) + (1 - share) * partial_bce(logits_BC, partner_BC)
    if rule == "signed":
        return partial_bce(logits_BC, mix(labels_BC.to(share.dtype), share))
    if rule == "both_known":
        both_BC = (labels_BC != UNKNOWN) & (partner_BC != UNKNOWN)
        present_BC = mix((labels_BC == PRESENT).to(share.dtype), share)
        # As partial_bce reads targets, 0 is unknown and probability 0 is -1.
        targets_BC = torch.where(present_BC > 0, present_BC, ABSENT)
        return partial_bce(logits_BC, torch.where(both_BC, targets_BC, UNKNOWN))
    assert rule == "either", f"no rule {rule!r}; there are: {', '.join(LABEL_RULES)}"
    return partial_bce(logits_BC, union(labels_BC, partner_BC))


def union(labels_BC: Tensor, others_BC: Tensor) -> Tensor:
    """The labels of two images seen together: the larger one, but ABSENT only if both are."""
    # PRESENT > UNKNOWN > ABSENT: one known absent and one unknown is unknown.
    return torch.maximum(labels_BC, others_BC)
