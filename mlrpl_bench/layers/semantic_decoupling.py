"""Semantic decoupling: one feature per category, collected from where its word vector looks."""

from __future__ import annotations

from torch import Tensor, nn

from mlrpl_bench.layers.semantic_attention import weighted_sum
from mlrpl_bench.layers.tanh_scores import tanh_scores


class SemanticDecoupling(nn.Module):
    """Category features by word-guided attention (SSGRL, Chen et al., ICCV 2019, section 3.2).

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
        """Category features (B, C, D), float32 under autocast too."""
        return weighted_sum(self.attention(maps_BDHW, words_CE), maps_BDHW)

    def attention(self, maps_BDHW: Tensor, words_CE: Tensor) -> Tensor:
        """Where each category looks: (B, C, H, W), non-negative, with sum 1 over the positions."""
        positions_BPM = self.from_position(maps_BDHW.flatten(2).transpose(1, 2))
        words_CM = self.from_word(words_CE)
        direction_M = (self.score.weight @ self.mix.weight).squeeze(0)
        weights_BCP = tanh_scores(positions_BPM, words_CM, direction_M).float().softmax(dim=-1)
        return weights_BCP.unflatten(-1, maps_BDHW.shape[-2:])
