"""The product at the heart of semantic decoupling, without ever holding it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 2**18, "cuda": 2**26}
"""Elements of the product that are made at a time: about what a core's cache holds; on a GPU, 256 MB."""


def tanh_scores(positions_BPM: Tensor, words_CM: Tensor, direction_M: Tensor, chunk: int | None = None) -> Tensor:
    """``tanh(position * word) . direction`` for every position and category, (B, C, P).

    Written down, this needs a tensor of B x C x P x M in the forward pass, kept for the backward pass: 1 GB for a batch
    of 16 at 14 x 14 positions, and its way to memory and back takes longer than the arithmetic. Here it is made a
    chunk at a time, and made again for the gradient; on a CPU that takes less than half the time.

    Args:
        chunk: elements of the product that are made at a time, by default `CHUNK` of the device.
    """
    if torch.compiler.is_compiling():  # the compiler fuses all of it into the sum, and makes it again by itself
        return ((positions_BPM[:, None] * words_CM[:, None]).tanh() * direction_M).sum(-1)
    chunk = CHUNK[positions_BPM.device.type] if chunk is None else chunk
    scores_BCP: Tensor = _TanhScores.apply(positions_BPM, words_CM, direction_M, chunk)
    return scores_BCP


class _TanhScores(torch.autograd.Function):
    """With t = tanh(p w): dt/dp = (1 - t^2) w, dt/dw = (1 - t^2) p. The gradient adds up in float32 at least."""

    @staticmethod
    def forward(ctx: Any, positions_BPM: Tensor, words_CM: Tensor, direction_M: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(positions_BPM, words_CM, direction_M)
        ctx.portions = _portions(positions_BPM, words_CM, chunk)
        scores_BCP = positions_BPM.new_empty(len(positions_BPM), len(words_CM), positions_BPM.shape[1])
        for images, categories in ctx.portions:
            scores_BCP[images, categories] = _met(positions_BPM[images], words_CM[categories]) @ direction_M
        return scores_BCP

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (scores_BCP,), (positions_BPM, words_CM, direction_M) = gradients, ctx.saved_tensors
        wide = torch.promote_types(positions_BPM.dtype, torch.float32)
        to_positions_BPM, to_words_CM, to_direction_M = (
            torch.zeros_like(value, dtype=wide) for value in (positions_BPM, words_CM, direction_M)
        )
        steered_CM = words_CM * direction_M
        for images, categories in ctx.portions:
            part_BPM, part_BCP = positions_BPM[images], scores_BCP[images, categories]
            met_BCPM = _met(part_BPM, words_CM[categories])
            to_direction_M += part_BCP.flatten() @ met_BCPM.flatten(0, 2)
            slope_BCPM = met_BCPM.mul_(met_BCPM).neg_().add_(1).mul_(part_BCP[..., None])
            to_words_CM[categories] += (slope_BCPM * part_BPM[:, None]).sum((0, 2))
            to_positions_BPM[images] += slope_BCPM.mul_(steered_CM[categories, None]).sum(1)
        return (
            to_positions_BPM.to(positions_BPM.dtype),
            (to_words_CM * direction_M).to(words_CM.dtype),
            to_direction_M.to(direction_M.dtype),
            None,
        )


def _met(positions_BPM: Tensor, words_CM: Tensor) -> Tensor:
    return (positions_BPM[:, None] * words_CM[:, None]).tanh_()


def _portions(positions_BPM: Tensor, words_CM: Tensor, chunk: int) -> list[tuple[slice, slice]]:
    """Which images and categories are taken at a time: whole images where at least one fits."""
    of_pair = positions_BPM[0].numel()
    images = max(1, chunk // (of_pair * len(words_CM)))
    categories = max(1, min(len(words_CM), chunk // of_pair))
    return [
        (slice(image, image + images), slice(category, category + categories))
        for image in range(0, len(positions_BPM), images)
        for category in range(0, len(words_CM), categories)
    ]
