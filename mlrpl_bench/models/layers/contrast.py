"""This module weighs the contrastive loss on category features and warms it up."""

from __future__ import annotations

from torch import Tensor

from mlrpl_bench.models.losses import contrastive
from mlrpl_bench.models.method import Batch, Progress


def warm_up(progress: Progress) -> float:
    """Rises from 0 to 1 within the first epoch and stays there.

    >>> [warm_up(Progress(epoch, 20, step=1, steps_per_epoch=4)) for epoch in (0, 1)]
    [0.25, 1.0]
    """
    return min(1.0, progress.epoch + progress.fraction_of_epoch())


def contrast(
    features_BCD: Tensor, batch: Batch, progress: Progress, weight: float, absent_pairs: bool
) -> dict[str, Tensor]:
    """Return the term ``contrastive``; nothing where its weight is 0."""
    if not weight:
        return {}
    pairs = contrastive(features_BCD, batch.labels_BC, batch.generator, absent_pairs)
    return {"contrastive": weight * warm_up(progress) * pairs}
