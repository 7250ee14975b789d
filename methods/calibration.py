"""Calibration: after training, each category's scores become probabilities, by known labels that were held out.

A slope and a shift of each category's logit are fitted to them (Platt 1999; for networks Guo et al., ICML 2017). The
order of the images within a category stays, and with it its average precision; what changes is what a score of 0.5
means, and so OF1, CF1 and the like. It is a step that follows any method with a last linear layer: `ssgrl+calibrated`.
The row to compare with is `ssgrl+held`: the same rows held out, and nothing changed.

A category with few held-out labels of either state shares its slope and shift with all categories together, as it does
in `fill`. Held-out labels must be known at random: where only positives are, nothing can be fitted and nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mlrpl_bench import FinishingStep, KnownEntries, generator_at, parameter, register_step

SHARE_HELD_OUT = 0.1
SAME = 1e-5
"""Of the largest logit: logits that spread by no more are one number."""


@register_step(
    "calibrated",
    idea="each category's scores become probabilities, by a slope and a shift fitted on held-out known labels.",
    paper="https://arxiv.org/abs/1706.04599",
    differs="calibrated: a slope and a shift of each category's logit, by a tenth of the training images held out",
)
class PlattScaling(FinishingStep):
    @dataclass(frozen=True)
    class Hyperparameters:
        fewest: int = parameter(10, "held-out labels of either state below which a category shares its curve", low=2)

    def __init__(self, hyperparameters: Hyperparameters) -> None:
        super().__init__(hyperparameters)
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        """Of each category the logits of the held-out rows, and whether they are present."""
        self._slopes: dict[int, float] = {}
        self._with_shared: set[int] = set()

    def held_out(self, num_rows: int, seed: int) -> Tensor:
        """Hold out the rows that `cft` and `held` hold out, so that the rows can be compared."""
        held_N = torch.zeros(num_rows, dtype=torch.bool)
        held_N[torch.randperm(num_rows, generator=generator_at("cft", seed))[: round(SHARE_HELD_OUT * num_rows)]] = True
        return held_N

    def rounds(self) -> int:
        return 2  # the first collects what the shared curve is fitted to

    def refit(self, entries: KnownEntries, round_: int) -> tuple[Tensor, Tensor] | None:
        if round_ == 0:
            rows_K = entries.held_K
            logits_K = entries.features_KD[rows_K] @ entries.weight_D + entries.bias
            self._held[entries.category] = logits_K, entries.present_K[rows_K]
            return None
        if (curve := self._curve(entries.category)) is None:
            return None
        slope, shift = curve
        self._slopes[entries.category] = slope
        return slope * entries.weight_D, slope * entries.bias + shift

    def _curve(self, category: int) -> tuple[float, float] | None:
        """The category's own slope and shift, with few labels the shared ones; None where its scores say nothing."""
        if self._enough(self._held[category][1]):
            return fitted(*self._held[category])
        self._with_shared.add(category)
        return self._shared

    @cached_property  # of as many labels as there are: once, not for each category
    def _shared(self) -> tuple[float, float] | None:
        """The slope and shift of all categories together; to be asked for in the second round."""
        logits_K, present_K = (torch.cat(parts) for parts in zip(*self._held.values(), strict=True))
        return fitted(logits_K, present_K) if self._enough(present_K) else None

    def _enough(self, present_K: Tensor) -> bool:
        present = int(present_K.sum())
        return min(present, len(present_K) - present) >= self.hyperparameters.fewest

    def scalars(self) -> dict[str, float]:
        return {
            "calibrated_categories": len(self._slopes),
            "with_shared_curve": len(self._with_shared & self._slopes.keys()),
            "mean_slope": sum(self._slopes.values()) / max(1, len(self._slopes)),
        }


def fitted(logits_K: Tensor, present_K: Tensor) -> tuple[float, float] | None:
    """The slope and shift of K labels; None where logits do not rise with them, or are one number but for rounding.

    >>> fitted(torch.tensor([0.1, 0.1 + 1e-8, 0.1]), torch.tensor([False, True, True]))
    """
    if logits_K.double().std() <= SAME * max(1.0, float(logits_K.abs().max())):
        return None
    slope, shift = platt(logits_K, present_K)
    return (slope, shift) if slope > 0 else None


def platt(logits_K: Tensor, present_K: Tensor) -> tuple[float, float]:
    """Fit p = sigmoid(slope x + shift) to K labels by the largest likelihood, in float64.

    A present label counts as (p + 1) / (p + 2) and an absent one as 1 / (a + 2), of p and a such labels (Platt 1999):
    so the curve is finite where scores separate them.

    >>> slope, shift = platt(torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([True, True, False, False]))
    >>> round(1 / (1 + 2.718281828 ** -(slope + shift)), 3)  # 3 / 4
    0.75
    """
    present = int(present_K.sum())
    high, low = (present + 1) / (present + 2), 1 / (len(present_K) - present + 2)
    targets_K = torch.where(present_K, high, low).double()
    middle, spread = float(logits_K.double().mean()), float(logits_K.double().std())
    scaled_K = (logits_K.double() - middle) / spread
    curve_2 = torch.zeros(2, dtype=torch.float64, device=logits_K.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([curve_2], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(curve_2[0] * scaled_K + curve_2[1], targets_K)
        value.backward()
        return value

    optimizer.step(loss)
    slope, shift = curve_2.tolist()
    return slope / spread, shift - slope * middle / spread
