"""Large Loss Matters in Weakly Supervised Multi-Label Classification (Kim et al., CVPR 2022).

Unknown labels are taken for absent, and the few of them with the largest loss are taken to be wrong: they are left
out (LL-R), trained as present for the step (LL-Ct), or labelled present for good (LL-Cp).

Differs from the paper: on SSGRL's network; the share of changed entries grows by the epoch of the papers' 20 (its
own runs have 10). Differs from the code: exactly the wanted number of entries changes, and never a known one.

BoostLU, from Bridging the Gap Between Model Explanations in Partially Annotated Multi-label Classification (Kim et
al., CVPR 2023), makes this easier: false negatives lower the high scores of class activation maps, so the positions
above 0 are multiplied before their mean becomes the logit, in training and in testing.

Differs from the paper: an epoch changes half of its share (`rate`), so that 20 epochs end where its 10 do; the class
activation maps learn at the common rate (`head_rate`; the code: 10 times). Differs from the code: as above.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench import (
    PRESENT,
    UNKNOWN,
    Backbone,
    Batch,
    Method,
    ParameterGroup,
    Progress,
    Task,
    parameter,
    register_method,
)
from mlrpl_bench.models.layers import ClassMaps, EpochMeans, SemanticGraphMethod, groups_with_head_rate
from mlrpl_bench.models.losses import largest, part_of_mean

REJECT, CORRECT, RELABEL = "reject", "correct", "relabel"


class ChangesLargeLosses(Method):
    """What is done with large losses; a subclass has the network."""

    @dataclass(frozen=True)
    class Hyperparameters:
        change: str = parameter(
            REJECT,
            "what happens to a large loss: left out, a positive's for the step, or for good",
            choices=(REJECT, CORRECT, RELABEL),
        )
        rate: float = parameter(
            0.002, "share of a batch's entries changed per epoch of 20 done; constant for relabel", low=0, high=1
        )
        start: int = parameter(1, "first epoch in which labels change, of the paper's 20", low=0, high=19)

    labels_NC: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.means = EpochMeans("changed_share")
        if hyperparameters.change != REJECT:  # which labels nothing
            self.register_buffer(
                "labels_NC", task.labels_NC.clone()
            )  # known, and changed (for good, or when last seen)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits_BC = self(batch.frozen_BDHW).float()
        absent_BC, present_BC = F.softplus(logits_BC), F.softplus(-logits_BC)  # the loss of either label
        unknown_BC = batch.labels_BC == UNKNOWN
        changed_BC = self._changed(absent_BC.detach(), unknown_BC, batch.index_B, progress)
        self.means.update(progress.step, changed_share=changed_BC.float().mean())
        terms = {
            "known": part_of_mean(torch.where(batch.labels_BC == PRESENT, present_BC, absent_BC), ~unknown_BC),
            "assumed_absent": part_of_mean(absent_BC, unknown_BC & ~changed_BC),
        }
        if self.hyperparameters.change != REJECT:
            terms["corrected"] = part_of_mean(present_BC, changed_BC)
        return terms

    def _changed(self, losses_BC: Tensor, unknown_BC: Tensor, index_B: Tensor, progress: Progress) -> Tensor:
        """Which unknown entries do not count as absent: those with the largest loss, and those changed for good."""
        num_changed = self._num_changed(progress, losses_BC.numel())
        if self.hyperparameters.change == REJECT:
            return largest(losses_BC, unknown_BC, num_changed)
        if self.hyperparameters.change == CORRECT:
            changed_BC = largest(losses_BC, unknown_BC, num_changed)
            self.labels_NC[index_B] = self.labels_NC[index_B].masked_fill(unknown_BC, UNKNOWN)
        else:
            earlier_BC = unknown_BC & (self.labels_NC[index_B] == PRESENT)
            changed_BC = earlier_BC | largest(losses_BC, unknown_BC & ~earlier_BC, num_changed)
        self.labels_NC[index_B] = self.labels_NC[index_B].masked_fill(changed_BC, PRESENT)
        return changed_BC

    def _num_changed(self, progress: Progress, num_entries: int) -> int:
        """How many entries of a batch change at this step, if as many are unknown."""
        epochs_done = progress.epoch_of_20()  # unrounded: the share grows with it, and the first epoch never counts
        if epochs_done < self.hyperparameters.start:
            return 0
        share = self.hyperparameters.rate * (1 if self.hyperparameters.change == RELABEL else epochs_done)
        # Rounded first: 0.002 * 9 * 500 is 9, not the 10 that its last binary digit would make of it.
        return min(math.ceil(round(share * num_entries, 6)), num_entries)

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()

    def pseudo_labels_NC(self) -> NDArray[np.int8] | None:
        return None if self.hyperparameters.change == REJECT else self.labels_NC.cpu().numpy()


@register_method(
    "ll_r",
    idea="Takes unknown labels for absent ones, and leaves those with the largest loss out.",
    paper="https://arxiv.org/abs/2206.03740",
    differs="SSGRL's network; the share of changed entries follows the papers' 20 epochs; known labels never change",
)
@register_method(
    "ll_ct",
    idea="Takes unknown labels for absent ones, except those with the largest loss: these are present for the step.",
    change=CORRECT,
)
@register_method(
    "ll_cp",
    idea="Takes unknown labels for absent ones, and labels those with the largest loss present for good.",
    change=RELABEL,
)
class LargeLoss(ChangesLargeLosses, SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(ChangesLargeLosses.Hyperparameters, SemanticGraphMethod.Hyperparameters):
        pass


@register_method(
    "boostlu_ll_r",
    idea="As ll_r, on class activation maps whose positive positions are multiplied before their mean is taken.",
    paper="https://arxiv.org/abs/2304.01804",
    differs="last stage trained; half of the code's share of changed entries per epoch (rate), for twice its 10 "
    "epochs; exactly the wanted number of unknown entries changes; class activation maps at the common rate "
    "(head_rate)",
    rate=0.0025,
)
@register_method(
    "boostlu_ll_ct",
    idea="As ll_ct, on class activation maps whose positive positions are multiplied before their mean is taken.",
    differs="last stage trained; half of the code's share of changed entries per epoch (rate), for twice its 10 "
    "epochs; exactly the wanted number of unknown entries changes; class activation maps at the common rate "
    "(head_rate)",
    change=CORRECT,
    rate=0.001,
)
@register_method(
    "boostlu_ll_cp",
    idea="As ll_cp, on class activation maps whose positive positions are multiplied before their mean is taken.",
    differs="last stage trained; half of the code's share of changed entries per epoch (rate), for twice its 10 "
    "epochs; exactly the wanted number of unknown entries changes; class activation maps at the common rate "
    "(head_rate)",
    change=RELABEL,
    rate=0.0005,
)
@register_method(
    "boostlu_an",
    idea="Takes every unknown label for absent, on class activation maps boosted as for boostlu_ll_r.",
    differs="last stage trained; class activation maps at the common rate (head_rate)",
    rate=0.0,
)
@register_method(
    "cam_ll_r",
    idea="As boostlu_ll_r without the boost: ll_r on a linear classifier of the mean position.",
    differs="a control that no paper has: last stage trained; half of the code's share of changed entries per epoch "
    "(rate), for twice its 10 epochs; exactly the wanted number of unknown entries changes",
    rate=0.0025,
    boost=1.0,
)
class BoostedLargeLoss(ChangesLargeLosses):
    @dataclass(frozen=True)
    class Hyperparameters(ChangesLargeLosses.Hyperparameters):
        boost: float = parameter(5.0, "what positions above 0 are multiplied by", low=1)
        head_rate: float = parameter(1.0, "learning rate of the class activation maps, relative to the rest", low=0)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.class_maps = ClassMaps(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return boosted_logits(self.class_maps(self.trained(frozen_BDHW)), self.hyperparameters.boost)

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        return groups_with_head_rate(self, self.hyperparameters.head_rate)

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.class_maps(self.trained(frozen_BDHW)).relu()


def boosted_logits(maps_BCHW: Tensor, boost: float) -> Tensor:
    """The mean over positions after those above 0 are multiplied.

    >>> boosted_logits(torch.tensor([[[[1.0, -2.0]]]]), boost=5)
    tensor([[1.5000]])
    """
    return torch.where(maps_BCHW > 0, boost * maps_BCHW, maps_BCHW).mean(dim=(2, 3))
