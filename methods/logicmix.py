"""LogicMix: mixing several partially labelled images (Chong et al., Pattern Recognition 171, 2026; arXiv 2405.15860).

About half of a batch's images are replaced by the mean of two or three, the image itself and partners drawn from the
batch; the mixture's labels are the logical OR of theirs in three values. Mixtures are judged by a loss of their own,
which weighs their easy positives down, not their negatives ("decoupled partial asymmetric loss"). `logicmix_pl` also
fills in labels, late in training and anew before each epoch: those of which the model, on the unmixed training images,
is very sure. They count before mixing.

Differs from the code: ImageNet weights V1 and the last stage trained, one shared augmentation and schedule, partners
from the batch (as in the authors' library mlcpl; their training draws them from the whole set, each freshly
augmented), and a mean over the batch's known entries instead of a sum: averaged over the unknown ones too, the loss
would be so small at 10 % known that the weight decay outweighs it. Logarithms have no floor of 1e-8, which matters
below a logit of -18. The second way (2WayAug-PL), RandAugment, is `logicmix_2way` (``view=strong``). The weights of
`logicmix_pl` are averaged, and label by their average, as in the code, whose time constant is 128,000 images: on COCO
1.56 of its 60 epochs, so half an epoch of 20 here, on every data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
    StrongView,
    Task,
    parameter,
    register_method,
)
from mlrpl_bench.models.layers import EpochMeans, PooledClassifier, union
from mlrpl_bench.models.losses import asymmetric_absent, asymmetric_present

TRAINING, STRONG = "training", "strong"


class Mixing(NamedTuple):
    """A draw says which images of a batch are replaced, and by the mean of which.

    Attributes:
        is_mixed_B: bool.
        members_BK: int64, rows of the batch, first the image itself; one may come twice.
        counts_BK: bool, which of these are in the mixture.
    """

    is_mixed_B: Tensor
    members_BK: Tensor
    counts_BK: Tensor


@register_method(
    "logicmix",
    idea="Replaces half of the images by means of two or three, whose labels are the logical OR in three values.",
    paper="https://arxiv.org/abs/2405.15860",
    differs="V1 weights, last stage trained, one shared augmentation and schedule, partners from the batch, a mean "
    "over known entries instead of a sum; no pseudo-labels",
)
class LogicMix(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        probability: float = parameter(0.5, "share of images that become mixtures", low=0, high=1)
        most: int = parameter(3, "largest number of images in a mixture; the smallest is 2", low=2)
        focus_absent: float = parameter(4.0, "exponent that weighs easy negatives of plain images down", low=0)
        margin: float = parameter(0.05, "taken off the scores of negatives of plain images", low=0, high=0.5)
        mixed_focus_present: float = parameter(4.0, "exponent that weighs easy positives of mixtures down", low=0)
        view: str = parameter(TRAINING, "what is mixed: training views, or RandAugment's", choices=(TRAINING, STRONG))

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.classifier = PooledClassifier(backbone.channels, len(task.categories))
        self.means = EpochMeans("mixed_share", "known_share_of_mixtures", "known_share_of_originals")

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.classifier(self.trained(frozen_BDHW))

    def strong_view(self) -> StrongView | None:
        return StrongView(interpolation="bilinear") if self.hyperparameters.view == STRONG else None

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        mixing = draw(len(batch.labels_BC), options.probability, options.most, batch.generator)
        frozen_BDHW = self._frozen(batch, mixing)
        logits_BC = self(frozen_BDHW).float()
        labels_BC = mixed_labels(self.labels_to_mix(batch), mixing)
        self._note(labels_BC, mixing, progress)
        original_BC = loss_by_entry(logits_BC, labels_BC, 0.0, options.focus_absent, options.margin)
        mixed_BC = loss_by_entry(logits_BC, labels_BC, options.mixed_focus_present, 0.0, 0.0)
        num_known = (labels_BC != UNKNOWN).sum().clamp(min=1)
        is_mixed_B1 = mixing.is_mixed_B[:, None]
        return {
            "original": torch.where(is_mixed_B1, 0, original_BC).sum() / num_known,
            "mixed": torch.where(is_mixed_B1, mixed_BC, 0).sum() / num_known,
        }

    def labels_to_mix(self, batch: Batch) -> Tensor:
        """The labels of the batch's images before mixing."""
        return batch.labels_BC

    def _frozen(self, batch: Batch, mixing: Mixing) -> Tensor:
        """The frozen part's output for the batch with its mixtures; only these go through the frozen part again."""
        images_B3HW, frozen_BDHW = batch.images_B3HW, batch.frozen_BDHW
        if self.hyperparameters.view == STRONG:
            assert batch.strong_images_B3HW is not None and batch.strong_BDHW is not None
            images_B3HW, frozen_BDHW = batch.strong_images_B3HW, batch.strong_BDHW
        rows_M = mixing.is_mixed_B.nonzero().squeeze(1)
        if not len(rows_M):
            return frozen_BDHW
        with torch.no_grad():
            mixed_MDHW = self.backbone.frozen(mean_of_members(images_B3HW, mixing, rows_M))
        return frozen_BDHW.index_copy(0, rows_M, mixed_MDHW.to(frozen_BDHW.dtype))

    def _note(self, labels_BC: Tensor, mixing: Mixing, progress: Progress) -> None:
        """Keep what is only reported."""
        known_B, is_mixed_B = (labels_BC != UNKNOWN).float().mean(dim=1), mixing.is_mixed_B

        def mean_over(members_B: Tensor) -> Tensor:
            return (known_B * members_B).sum() / members_B.sum().clamp(min=1)

        self.means.update(
            progress.step,
            mixed_share=is_mixed_B.float().mean(),
            known_share_of_mixtures=mean_over(is_mixed_B),
            known_share_of_originals=mean_over(~is_mixed_B),
        )

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()


@register_method(
    "logicmix_pl",
    idea="As logicmix; from a third of training on, labels that it is very sure of are filled in before mixing.",
    paper="https://arxiv.org/abs/2405.15860",
    differs="V1 weights, last stage trained, one shared augmentation and schedule, partners from the batch, a mean "
    "over known entries instead of a sum; RandAugment only in logicmix_2way (view); averaged weights have COCO's time "
    "constant everywhere, half an epoch of 20, and are scored whichever are better",
)
class LogicMixPseudoLabels(LogicMix):
    @dataclass(frozen=True)
    class Hyperparameters(LogicMix.Hyperparameters):
        start: int = parameter(7, "first epoch before which labels are filled in, of 20", low=0, high=19)
        threshold: float = parameter(4.0, "a logit above is present, one below minus it absent", low=0)

    recipe = Recipe(ema=0.5)

    labels_NC: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.register_buffer("labels_NC", task.labels_NC.clone())  # known, and filled in
        self._observed: list[tuple[Tensor, Tensor]] = []

    def labels_to_mix(self, batch: Batch) -> Tensor:
        return self.labels_NC[batch.index_B]

    def passes(self, progress: Progress) -> bool:
        return progress.started(self.hyperparameters.start)

    def observe(self, batch: Batch) -> None:
        logits_BC = self(batch.frozen_BDHW).float()
        self._observed.append((batch.index_B, filled_in(logits_BC, batch.labels_BC, self.hyperparameters.threshold)))

    def end_pass(self, generator: torch.Generator) -> None:
        for index_B, labels_BC in self._observed:
            self.labels_NC[index_B] = labels_BC
        self._observed.clear()

    def pseudo_labels_NC(self) -> NDArray[np.int8]:
        return self.labels_NC.cpu().numpy()


def draw(num_images: int, probability: float, most: int, generator: torch.Generator) -> Mixing:
    """Draw which of a batch's images are mixed, with how many and with which; all is drawn, whatever comes of it.

    An image is mixed with the probability given; 2 to `most` images then, itself among them, are equally probable, and
    so is each image of the batch as a partner, itself included, every time anew.
    """
    device = generator.device
    is_mixed_B = torch.rand(num_images, generator=generator, device=device) < probability
    counts_B = torch.randint(2, most + 1, (num_images,), generator=generator, device=device)
    partners_BP = torch.randint(num_images, (num_images, most - 1), generator=generator, device=device)
    own_B1 = torch.arange(num_images, device=device)[:, None]
    counts_BK = torch.arange(most, device=device) < counts_B[:, None]
    return Mixing(is_mixed_B, torch.cat([own_B1, partners_BP], dim=1), counts_BK)


def mean_of_members(images_B3HW: Tensor, mixing: Mixing, rows_M: Tensor) -> Tensor:
    """The mixtures at some rows of the batch (M, 3, H, W): means over their members, in float32 under autocast too."""
    members_MK, counts_MK = mixing.members_BK[rows_M], mixing.counts_BK[rows_M]
    shares_MK = counts_MK / counts_MK.sum(dim=1, keepdim=True)
    mixed_M3HW = torch.zeros_like(images_B3HW[rows_M])
    for member_M, share_M in zip(members_MK.T, shares_MK.T, strict=True):  # one after the other: memory for one each
        mixed_M3HW += share_M[:, None, None, None] * images_B3HW[member_M]
    return mixed_M3HW


def mixed_labels(labels_BC: Tensor, mixing: Mixing) -> Tensor:
    """The labels of the batch with its mixtures: the union of the members' where an image is mixed, else its own."""
    union_BC = union(labels_BC, mixing.members_BK, mixing.counts_BK)
    return torch.where(mixing.is_mixed_B[:, None], union_BC, labels_BC)


def loss_by_entry(
    logits_BC: Tensor, labels_BC: Tensor, focus_present: float, focus_absent: float, margin: float
) -> Tensor:
    """The asymmetric loss of each known entry, 0 for unknown ones (B, C); weights have no gradient."""
    present_BC = asymmetric_present(logits_BC, focus_present)
    absent_BC = asymmetric_absent(logits_BC, focus_absent, margin)
    return torch.where(labels_BC == PRESENT, present_BC, absent_BC).where(labels_BC != UNKNOWN, 0)


def filled_in(logits_BC: Tensor, labels_BC: Tensor, threshold: float) -> Tensor:
    """The labels, in which unknown ones are present above a logit, absent below minus it; int8 (B, C)."""
    sure_BC = torch.where(logits_BC > threshold, PRESENT, UNKNOWN).masked_fill(logits_BC < -threshold, ABSENT)
    return torch.where(labels_BC == UNKNOWN, sure_BC, labels_BC).to(torch.int8)
