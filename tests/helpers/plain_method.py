"""The plainest method there can be, on which tests plant what they are about.

Test modules import this; it has no tests.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Batch, Method, Progress
from mlrpl_bench.models.registry import MethodEntry


class Plain(Method):
    """One linear layer on the mean position."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.classifier = nn.Linear(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.classifier(self.trained(frozen_BDHW).mean((2, 3)))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"partial_bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}


def entry_of(cls: type[Method]) -> MethodEntry:
    """A class as if it were registered under its own name."""
    return MethodEntry(cls.__name__, cls, Path(__file__))
