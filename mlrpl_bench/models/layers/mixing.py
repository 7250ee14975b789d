"""This module helps methods that mix images: the usual law of mixup's coefficient, and the labels of mixed images."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrpl_bench.data.protocol import ABSENT


def symmetric_beta(concentration: float, generator: torch.Generator) -> Tensor:
    """Draw a scalar in [0, 1] from Beta(concentration, concentration), on the generator's device.

    torch's own distribution takes no generator. This one makes exactly two even draws, whatever they are, so that
    nothing has to be looked at on the host.
    """
    return from_even_draws(torch.rand(2, generator=generator, device=generator.device), concentration)


def from_even_draws(draws_2: Tensor, concentration: float) -> Tensor:
    """Return the value of the beta law that two even draws u, v from [0, 1) stand for.

    A variable T of Student's law with 2a degrees of freedom gives one of Beta(a, a), 1/2 + T / (2 sqrt(2a + T^2)),
    and T = sqrt(2a (u^(-1/a) - 1)) cos(2 pi v) has that law (Bailey, Mathematics of Computation 62, 1994).
    """
    power, cosine = draws_2[0] ** (1 / concentration), torch.cos(2 * torch.pi * draws_2[1])
    # The fraction is multiplied by u^(1/2a) above and below: that may underflow where its inverse would overflow. Then
    # the cosine is left, and no floating-point number has one of exactly 0.
    length = (power + (1 - power) * cosine**2).sqrt()
    return (0.5 + 0.5 * (1 - power).sqrt() * cosine / length).clamp(0, 1)


def union(labels_BC: Tensor, members_MK: Tensor, counts_MK: Tensor) -> Tensor:
    """Return the labels of mixtures that show several images: the logical OR in three values (LogicMix, Chong et al.).

    A category is present if it is in any member, absent if it is absent from all, and unknown otherwise. Mixtures
    without any member show nothing: all their categories are absent.

    Args:
        labels_BC: PRESENT, UNKNOWN and ABSENT, of the images.
        members_MK: int64, which images the M mixtures show, as rows of `labels_BC`; one may come twice.
        counts_MK: bool, which of these count.

    Returns:
        (M, C), of the labels' type.

    >>> union(torch.tensor([[1, 0, -1], [-1, -1, -1]]), torch.tensor([[0, 1]]), torch.tensor([[True, True]]))
    tensor([[ 1,  0, -1]])
    """
    # PRESENT > UNKNOWN > ABSENT: the largest member's label is the union's.
    return labels_BC[members_MK].masked_fill(~counts_MK[..., None], ABSENT).amax(dim=1)
