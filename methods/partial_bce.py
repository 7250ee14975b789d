"""The plain baseline: global average pooling, one linear layer, and partial binary cross-entropy.

Differs from Durand et al. (CVPR 2019): no normalisation by the share of known labels (that is another method), no
graph network, no curriculum.
"""

from __future__ import annotations

from torch import Tensor, nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.losses import partial_bce
from mlrpl_bench.method import Batch, Method, Progress, Recipe, Task
from mlrpl_bench.registry import register_method


@register_method(
    "partial_bce",
    paper="https://arxiv.org/abs/1902.09720",
    differs="no normalisation by the share of known labels, no graph network, no curriculum",
    default=True,
)
class PartialBCE(Method):
    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Method.Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.classifier = nn.Linear(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.classifier(self.trained(frozen_BDHW).mean(dim=(2, 3)))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"partial_bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}
