"""This module blends features: mixing in one that shows a category supplies the unknown label.

SARB (Pu et al., AAAI 2022, https://arxiv.org/abs/2203.02172) introduced it, DSRB continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.layers.epoch_means import EpochMeans
from mlrpl_bench.models.layers.semantic_graph import SemanticGraphMethod
from mlrpl_bench.models.losses import partial_bce


class Version(NamedTuple):
    """This is a version of a batch's category features.

    Attributes:
        features_BCD: the features.
        targets_BC: their targets in [-1, 1]; 0 is unknown.
        mixed_BC: bool, where the features differ from those of the first version; None for the first version itself.
    """

    features_BCD: Tensor
    targets_BC: Tensor
    mixed_BC: Tensor | None = None


@dataclass(frozen=True)
class BlendingHyperparameters(SemanticGraphMethod.Hyperparameters):
    """All methods that blend features have these hyper-parameters."""

    learned: bool = parameter(True, "train the coefficients alpha and beta; else they stay at 0.5")
    contrastive: float = parameter(0.05, "weight of the contrastive loss", low=0)
    absent_pairs: bool = parameter(True, "contrast pairs of images that both lack the category, too")
    start: int = parameter(5, "first epoch with blending, of the paper's 20", low=0, high=19)
    interval: int = parameter(5, "epochs between two rounds of prototypes, of the paper's 20", low=1, high=20)


class Blending(nn.Module):
    """Blending mixes category features by its coefficients and counts how much was mixed.

    Args:
        instance: blend with another image of the batch (ILRB), and keep the share alpha of the own feature.
        prototype: blend with prototypes of categories (PLRB), and keep the share beta.
        learned: train both; else they stay at 0.5.
    """

    def __init__(self, instance: bool, prototype: bool, learned: bool) -> None:
        super().__init__()
        if instance:
            self.alpha = nn.Parameter(torch.tensor(0.5), requires_grad=learned)
        if prototype:
            self.beta = nn.Parameter(torch.tensor(0.5), requires_grad=learned)
        self.instance, self.prototype = instance, prototype
        self.mixed = EpochMeans("instance", "prototype")

    def forward(
        self, features_BCD: Tensor, labels_BC: Tensor, step: int, prototypes: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Version]:
        """Return a version of the features for each kind of blending.

        Args:
            step: within the epoch.
            prototypes: which entries take one, bool (B, C), and the prototypes, which broadcast to the features.
        """
        versions = {}
        shares = {name: features_BCD.new_zeros(()) for name in self.mixed.names}
        if self.instance:
            self.alpha.data.clamp_(0, 1)
            mixed_BC = instance_choice(labels_BC)
            versions["instance"] = blend(features_BCD, features_BCD.flip(0), labels_BC, mixed_BC, self.alpha)
            shares["instance"] = mixed_BC.float().mean()
        if prototypes is not None:
            self.beta.data.clamp_(0, 1)
            mixed_BC, others_BCD = prototypes
            versions["prototype"] = blend(features_BCD, others_BCD, labels_BC, mixed_BC, self.beta)
            shares["prototype"] = mixed_BC.float().mean()
        self.mixed.update(step, **shares)
        return versions

    def scalars(self) -> dict[str, float | Tensor]:
        """Return the coefficients, and the share of all entries that was mixed in the epoch so far."""
        mixed = self.mixed.scalars()
        numbers: dict[str, float | Tensor] = {}
        if self.instance:
            numbers |= {"alpha": self.alpha.detach(), "instance_mixed_share": mixed["instance"]}
        if self.prototype:
            numbers |= {"beta": self.beta.detach(), "prototype_mixed_share": mixed["prototype"]}
        return numbers


def supervise(head: Callable[..., Tensor], versions: dict[str, Version]) -> dict[str, Tensor]:
    """Return a `partial_bce` for each version of the features, by its name; the head sees them all as one batch.

    Args:
        head: makes logits of features, such as a `GraphHead`; told by `read_BC` which the loss reads, and by
            `mixed_VBC` where versions differ, see there.
        versions: the first one is what was found in the images; others are blended from it.
    """
    features_BCD = torch.cat([version.features_BCD for version in versions.values()])
    read_BC = torch.cat([version.targets_BC != UNKNOWN for version in versions.values()])
    logits = head(features_BCD, read_BC=read_BC, mixed_VBC=_mixed(list(versions.values()))).chunk(len(versions))
    return {
        name: partial_bce(logits_BC, version.targets_BC)
        for (name, version), logits_BC in zip(versions.items(), logits, strict=True)
    }


def _mixed(versions: Sequence[Version]) -> Tensor | None:
    """Return where each version differs from the first one, or None if it is the only one."""
    mixed = [version.mixed_BC for version in versions[1:] if version.mixed_BC is not None]
    assert len(mixed) == len(versions) - 1, "a version that is not the first says where it differs from the first"
    return torch.stack([torch.zeros_like(mixed[0]), *mixed]) if mixed else None


def blend(features_BCD: Tensor, others_BCD: Tensor, labels_BC: Tensor, mixed_BC: Tensor, kept: Tensor) -> Version:
    """Blend features: where `mixed_BC`, keep a share of the feature and take the rest from `others_BCD`, which show the
    category.

    The new target is the share taken, 1 - kept: a gradient reaches `kept` through the features and through it
    (SARB's equations 3, 4 and 7, 8). Elsewhere features and labels are unchanged.
    """
    taken_BC = torch.where(mixed_BC, 1 - kept, 0)
    targets_BC = torch.where(mixed_BC, taken_BC, labels_BC.to(taken_BC.dtype))
    return Version(features_BCD + taken_BC[..., None] * (others_BCD - features_BCD), targets_BC, mixed_BC)


def instance_choice(labels_BC: Tensor) -> Tensor:
    """Return the entries that ILRB mixes: unknown ones whose category the partner image is known to have, bool (B, C).

    The partner is the image at the mirrored place of the batch; in a batch of odd size the middle one is its own.
    """
    return (labels_BC == UNKNOWN) & (labels_BC.flip(0) == PRESENT)


def unknown_choice(labels_BC: Tensor, eligible_C: Tensor, generator: torch.Generator, count: int = 1) -> Tensor:
    """Draws unknown entries of eligible categories, `count` an image, or all of them where there are fewer.

    Returns:
        bool (B, C).
    """
    candidates_BC = (labels_BC == UNKNOWN) & eligible_C
    draws_BC = torch.rand(labels_BC.shape, generator=generator, device=labels_BC.device)
    # Where candidates run out, topk goes on with other entries; the last factor removes them.
    chosen_BK = draws_BC.masked_fill(~candidates_BC, -1).topk(min(count, labels_BC.shape[1]), dim=1).indices
    return torch.zeros_like(candidates_BC).scatter_(1, chosen_BK, True) & candidates_BC
