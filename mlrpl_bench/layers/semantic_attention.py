"""Semantic attention: one feature per category, collected from where its class activation map is high."""

from __future__ import annotations

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
        """Category features (B, C, D) of the reduced maps, float32 under autocast too."""
        return weighted_sum(self.attention(unreduced_BDHW), maps_BDHW)

    def attention(self, unreduced_BDHW: Tensor) -> Tensor:
        """The weights m / Z of all positions: (B, C, H, W), non-negative."""
        weights_BCHW = self.classifiers(self.pool(unreduced_BDHW)).float().sigmoid()
        if self.normalisation == "mean":
            return weights_BCHW / weights_BCHW[0, 0].numel()
        if self.normalisation == "mass":
            return weights_BCHW / weights_BCHW.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        return weights_BCHW


def weighted_sum(weights_BCHW: Tensor, maps_BDHW: Tensor) -> Tensor:
    """For each category the sum of all positions with its weights: (B, C, D), float32 under autocast too."""
    with torch.autocast(maps_BDHW.device.type, enabled=False):
        return weights_BCHW.flatten(2).float() @ maps_BDHW.flatten(2).transpose(1, 2).float()
