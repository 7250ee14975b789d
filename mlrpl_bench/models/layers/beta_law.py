"""Draws from a symmetric beta distribution, the usual law of mixup's coefficient."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_beta(concentration: float, generator: torch.Generator) -> Tensor:
    """A scalar in [0, 1] from Beta(concentration, concentration), on the generator's device.

    torch's own distribution takes no generator. This one makes exactly two even draws, whatever they are, so that
    nothing has to be looked at on the host.
    """
    return from_even_draws(torch.rand(2, generator=generator, device=generator.device), concentration)


def from_even_draws(draws_2: Tensor, concentration: float) -> Tensor:
    """The value of the beta law that two even draws u, v from [0, 1) stand for.

    A variable T of Student's law with 2a degrees of freedom gives one of Beta(a, a), 1/2 + T / (2 sqrt(2a + T^2)),
    and T = sqrt(2a (u^(-1/a) - 1)) cos(2 pi v) has that law (Bailey, Mathematics of Computation 62, 1994).
    """
    power, cosine = draws_2[0] ** (1 / concentration), torch.cos(2 * torch.pi * draws_2[1])
    # The fraction is multiplied by u^(1/2a) above and below: that may underflow where its inverse would overflow. Then
    # the cosine is left, and no floating-point number has one of exactly 0.
    length = (power + (1 - power) * cosine**2).sqrt()
    return (0.5 + 0.5 * (1 - power).sqrt() * cosine / length).clamp(0, 1)
