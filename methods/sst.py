"""Structured Semantic Transfer for Multi-Label Recognition with Partial Labels (Chen et al., AAAI 2022).

On SSGRL's network, unknown labels are filled in where two kinds of evidence are strong enough: the category occurs
together with those known to be present in the image, says a head on pairs of categories (intra-image); or its
feature is like those of other images known to have it (inter-image). Only present labels are filled in.

Differs from the paper, like its code: losses are averaged over batch and pairs, the pairs' targets take unknown for
absent, an image's evidence across images is the mean over a bank of the latest known positives that starts empty,
and the loss of pairs and the contrastive loss warm up over the first epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrpl_bench import PRESENT, Backbone, Batch, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import SemanticTransferMethod, fill, mean_cosine, support
from mlrpl_bench.models.losses import partial_bce


@register_method(
    "sst",
    idea="Fills in unknown labels by co-occurrence within the image and by likeness of features across images.",
    paper="https://arxiv.org/abs/2112.10941",
    published="SST",
    differs="as its code: losses averaged over batch and pairs; a bank of latest features; warm-up in the first epoch",
)
class SST(SemanticTransferMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticTransferMethod.Hyperparameters):
        first_threshold: float = parameter(0.95, "evidence that fills in a label, at first", low=0, high=1)
        threshold_step: float = parameter(0.025, "what it falls by in an epoch of the paper's 20", low=0, high=1)
        last_threshold: float = parameter(0.75, "where it stops falling", low=0, high=1)
        bank: int = parameter(100, "latest known positives that are kept per category", low=1)

    bank_CND: Tensor
    threshold: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        bank_CND = torch.zeros(len(task.categories), hyperparameters.bank, backbone.feature_width)
        self.register_buffer("bank_CND", bank_CND)
        self.register_buffer("threshold", torch.ones(()))  # 1 until labels are transferred

    def transfer(
        self, features_BCD: Tensor, logits_BC: Tensor, pair_logits_BP: Tensor, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        labels_BC = batch.labels_BC
        self.bank_CND.copy_(push(self.bank_CND, features_BCD.detach(), labels_BC))
        if not progress.started(self.hyperparameters.start):
            return {}
        self.threshold.fill_(self._threshold(progress))
        intra_BC = fill(labels_BC, support(pair_logits_BP.detach(), labels_BC) >= self.threshold)
        # Empty places of the bank count with a likeness of 0, as in the code.
        likeness_BC = mean_cosine(features_BCD.detach(), self.bank_CND, self.hyperparameters.bank)
        inter_BC = fill(labels_BC, likeness_BC >= self.threshold)
        self.note(batch, progress, intra_BC, inter_BC)
        return {"intra": partial_bce(logits_BC, intra_BC), "inter": partial_bce(logits_BC, inter_BC)}

    def _threshold(self, progress: Progress) -> float:
        options = self.hyperparameters
        fallen = options.threshold_step * max(0.0, progress.epoch_of_20() - options.start)
        return max(options.last_threshold, options.first_threshold - fallen)

    def scalars(self) -> dict[str, float | Tensor]:
        return {"threshold": self.threshold, **self.filled.scalars()}


def push(bank_CND: Tensor, features_BCD: Tensor, labels_BC: Tensor) -> Tensor:
    """The bank with the features of known positives before what it held, the batch's last image first.

    What no longer fits falls out at the end. The size of everything is known beforehand: nothing waits for a device.
    """
    num_places = bank_CND.shape[1]
    is_new_CB = (labels_BC == PRESENT).T.flip(1)
    # A stable sort moves the batch's other entries behind the bank and keeps the order of everything else.
    last_CS = torch.cat([~is_new_CB, is_new_CB.new_zeros(len(bank_CND), num_places)], dim=1)
    order_CN = last_CS.int().argsort(dim=1, stable=True)[:, :num_places]
    candidates_CSD = torch.cat([features_BCD.to(bank_CND.dtype).transpose(0, 1).flip(1), bank_CND], dim=1)
    return candidates_CSD.gather(1, order_CN[..., None].expand_as(bank_CND))
