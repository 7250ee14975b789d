"""This method trains a pooled classifier by cross-entropy on the known labels, which it smooths.

Differs from its paper: it has none; label smoothing is Szegedy et al., CVPR 2016, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mlrpl_bench import ABSENT, PRESENT, Backbone, Batch, Method, Progress, Task, parameter, register_method
from mlrpl_bench.models.layers import PooledClassifier


@register_method("smooth_bce", idea="Cross-entropy on the known labels, smoothed.", differs="no paper")
class SmoothBCE(Method):
    """Known labels are trained towards 1 - s / 2 and s / 2, where s is the smoothing."""

    @dataclass(frozen=True)
    class Hyperparameters(Method.Hyperparameters):
        smoothing: float = parameter(0.1, "distance between the target of a known label and its state", low=0, high=1)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.classifier = PooledClassifier(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return self.classifier(self.trained(frozen_BDHW))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the only term, a mean over the known labels; 0 where none is known."""
        present_BC, absent_BC = batch.labels_BC == PRESENT, batch.labels_BC == ABSENT
        known_BC = present_BC | absent_BC
        half = self.hyperparameters.smoothing / 2
        targets_BC = half + (1 - 2 * half) * present_BC.float()
        each_BC = nn.functional.binary_cross_entropy_with_logits(self(batch.frozen_BDHW), targets_BC, reduction="none")
        return {"smooth_bce": (each_BC * known_BC).sum() / known_BC.sum().clamp(min=1)}
