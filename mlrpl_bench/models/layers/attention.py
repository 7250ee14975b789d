"""Attention: features per category, collected from where maps are high, where words lead, or by a transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NORMALISATIONS = ("mean", "none", "mass")


class SemanticAttention(nn.Module):
    """Category features by class activation maps (ADD-GCN, Ye et al., ECCV 2020, https://arxiv.org/abs/2012.02994).

    At every position x of the backbone's map, before its channels are reduced, a linear classifier without bias says
    how much of category c is there; the reduced positions g are added up with these weights:

        m_cp = sigmoid(k_c . x_p)
        f_c = sum over p of m_cp g_p / Z

    ADD-GCN has Z = 1. A sum over 49 positions with weights about 0.5 is some 25 times as large as the average that
    semantic decoupling takes, and saturates the tanh of the head; ``mean`` divides by the number of positions,
    ``mass`` by the sum of the weights.

    Args:
        channels: of the map before the reduction.
        num_categories: C.
        pool: whether the reduced map stands for 2 x 2 averages of this one, see `Trunk`.
        normalisation: what Z is: ``mean``, ``none`` or ``mass``.
    """

    def __init__(self, channels: int, num_categories: int, pool: bool, normalisation: str = "mean") -> None:
        super().__init__()
        assert normalisation in NORMALISATIONS, normalisation
        self.normalisation = normalisation
        self.pool = nn.AvgPool2d(2) if pool else nn.Identity()
        self.classifiers = nn.Conv2d(channels, num_categories, kernel_size=1, bias=False)  # k

    def forward(self, maps_BDHW: Tensor, unreduced_BDHW: Tensor) -> Tensor:
        """Return category features (B, C, D) of the reduced maps, float32 under autocast too."""
        return weighted_sum(self.attention(unreduced_BDHW), maps_BDHW)

    def attention(self, unreduced_BDHW: Tensor) -> Tensor:
        """Return the weights m / Z of all positions: (B, C, H, W), non-negative."""
        weights_BCHW = self.classifiers(self.pool(unreduced_BDHW)).float().sigmoid()
        if self.normalisation == "mean":
            return weights_BCHW / weights_BCHW[0, 0].numel()
        if self.normalisation == "mass":
            return weights_BCHW / weights_BCHW.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        return weights_BCHW


def weighted_sum(weights_BCHW: Tensor, maps_BDHW: Tensor) -> Tensor:
    """Return for each category the sum of all positions with its weights: (B, C, D), float32 under autocast too."""
    with torch.autocast(maps_BDHW.device.type, enabled=False):
        return weights_BCHW.flatten(2).float() @ maps_BDHW.flatten(2).transpose(1, 2).float()


class SemanticDecoupling(nn.Module):
    """This gives category features by word-guided attention (SSGRL, Chen et al., ICCV 2019, section 3.2).

    A position g and a category's word vector v meet as ``t = tanh(W1 g * W2 v)``; the score of the position is
    ``w4 . (W3 t + b3) + b4``; a softmax over positions turns scores into weights, with which the g are averaged.

    Computed in a shorter form with the same value:

    - The score is ``(W3^T w4) . t`` plus a constant, so no M x M product is taken at every position and category.
      W3 and w4 stay separate parameters, because a product of two is not trained like one vector.
    - The constant ``w4 . b3 + b4`` is the same at all positions, so the softmax removes it. Neither bias could
      receive a gradient; both are left out.
    - The average is one batched matrix product instead of a B x C x P x D tensor; t is never held whole either, see
      `tanh_scores`.

    Args:
        width: D, channels of the maps and width of the features.
        word_width: E, width of the word vectors.
        hidden: M, the width in which positions and words meet.
    """

    def __init__(self, width: int, word_width: int, hidden: int) -> None:
        super().__init__()
        self.from_position = nn.Linear(width, hidden, bias=False)  # W1
        self.from_word = nn.Linear(word_width, hidden, bias=False)  # W2
        self.mix = nn.Linear(hidden, hidden, bias=False)  # W3
        self.score = nn.Linear(hidden, 1, bias=False)  # w4

    def forward(self, maps_BDHW: Tensor, words_CE: Tensor) -> Tensor:
        """Return category features (B, C, D), float32 under autocast too."""
        return weighted_sum(self.attention(maps_BDHW, words_CE), maps_BDHW)

    def attention(self, maps_BDHW: Tensor, words_CE: Tensor) -> Tensor:
        """Return where each category looks: (B, C, H, W), non-negative, with sum 1 over the positions."""
        positions_BPM = self.from_position(maps_BDHW.flatten(2).transpose(1, 2))
        words_CM = self.from_word(words_CE)
        direction_M = (self.score.weight @ self.mix.weight).squeeze(0)
        weights_BCP = tanh_scores(positions_BPM, words_CM, direction_M).float().softmax(dim=-1)
        return weights_BCP.unflatten(-1, maps_BDHW.shape[-2:])


CHUNK = {"cpu": 2**18, "cuda": 2**26}
"""The product is computed in chunks of this many elements: about a core's cache; on a GPU, 256 MB."""


def tanh_scores(positions_BPM: Tensor, words_CM: Tensor, direction_M: Tensor, chunk: int | None = None) -> Tensor:
    """Return ``tanh(position * word) . direction`` for every position and category, (B, C, P).

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
    """This computes the scores tanh(p w) d with their own gradient.

    With t = tanh(p w): dt/dp = (1 - t^2) w, dt/dw = (1 - t^2) p. The gradient adds up in float32 at least.
    """

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
    """Return which images and categories are taken at a time: whole images where at least one fits."""
    of_pair = positions_BPM[0].numel()
    images = max(1, chunk // (of_pair * len(words_CM)))
    categories = max(1, min(len(words_CM), chunk // of_pair))
    return [
        (slice(image, image + images), slice(category, category + categories))
        for image in range(0, len(positions_BPM), images)
        for category in range(0, len(words_CM), categories)
    ]


class AttentionBlock(nn.Module):
    """This is a block of a transformer, normalised after each of its two steps (Vaswani et al., 2017).

        s <- norm(s + dropout(attention(query, key, value)))
        s <- norm(s + dropout(W2 dropout(relu(W1 s + b1)) + b2))

    The states attend to the positions of a map, not to each other, unless they are given as keys themselves.

    Args:
        width: E of states, keys and values.
        hidden: the width between W1 and W2.
        heads: of the attention; they must divide the width.
        dropout: the probability; in the attention's weights too.
    """

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        # One parameter holds the projections of query, key and value: the key's bias alone can change nothing.
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.after_attention = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.after_feedforward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states_BQE: Tensor, queries_BQE: Tensor, keys_BPE: Tensor, values_BPE: Tensor) -> Tensor:
        """Return the states after the block, (B, Q, E)."""
        attended_BQE, _ = self.attention(queries_BQE, keys_BPE, values_BPE, need_weights=False)
        states_BQE = self.after_attention(states_BQE + self.dropout(attended_BQE))
        hidden_BQF = self.dropout(torch.relu(self.widen(states_BQE)))
        return self.after_feedforward(states_BQE + self.dropout(self.narrow(hidden_BQF)))

    def weights(self, queries_BQE: Tensor, keys_BPE: Tensor) -> Tensor:
        """Return how much each query attends to each position, (B, Q, P).

        It is the mean over the heads; non-negative, sum 1.
        """
        _, weights_BQP = self.attention(queries_BQE, keys_BPE, keys_BPE, average_attn_weights=True)
        return weights_BQP
