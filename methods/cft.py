"""Category-wise fine-tuning (Chong et al., arXiv 2401.16991): each category's classifier is refitted on its own labels.

A trained linear layer is C logistic regressions. After training, each is fitted on the known labels of its category
alone, without pseudo-labels or assumed ones, from the trained weights; the rest of the network stays as it is. It is a
step that follows any method with a last linear layer: `ssgrl+cft`.

Differs from the code: steps are chosen on a tenth of the training images, held out before training, and not on the test
images; by back-propagation only, not by the genetic search. The method sees the labels of the held-out rows as unknown,
so the row to compare with is `ssgrl+held`: the same rows held out, and nothing refitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from mlrpl_bench import FinishingStep, KnownEntries, generator_at, parameter, register_step
from mlrpl_bench.models.losses import asymmetric_absent, asymmetric_present

CATEGORY, SHARED, NONE = "category", "shared", "none"
SHARE_HELD_OUT = 0.1


@register_step(
    "cft",
    idea="each category's classifier is refitted on its own known labels.",
    paper="https://arxiv.org/abs/2401.16991",
    differs="cft: steps chosen on a tenth of the training images held out, not on the test set, and for each category "
    "(choice); back-propagation only",
)
@register_step(
    "held",
    idea="nothing, a control for cft: the same rows held out, and no refit.",
    paper="https://arxiv.org/abs/2401.16991",
    differs="held: a tenth of the training images without labels, a control for cft",
    refit_steps=0,
)
class CategoryWiseFineTuning(FinishingStep):
    @dataclass(frozen=True)
    class Hyperparameters:
        choice: str = parameter(
            CATEGORY,
            "which number of steps is kept: each category's best on held-out rows, the best for all, or the last",
            choices=(CATEGORY, SHARED, NONE),
        )
        refit_steps: int = parameter(5000, "most steps of the refit; 0 for no refit", low=0)
        patience: int = parameter(300, "category: steps without a better average precision before it ends", low=1)
        fewest: int = parameter(3, "known positives and negatives held out, below which a category is left", low=1)
        refit_rate: float = parameter(1e-4, "learning rate of the refit", low=0)
        refit_focus: float = parameter(4.0, "exponent that weighs easy negatives down", low=0)
        refit_margin: float = parameter(0.05, "taken off the scores of negatives", low=0, high=0.5)

    def __init__(self, hyperparameters: Hyperparameters) -> None:
        super().__init__(hyperparameters)
        self._curves: dict[int, list[float]] = {}
        self._kept: dict[int, int] = {}
        """How many steps are kept, of each category that was refitted."""

    def held_out(self, num_rows: int, seed: int) -> Tensor:
        held_N = torch.zeros(num_rows, dtype=torch.bool)
        held_N[torch.randperm(num_rows, generator=generator_at("cft", seed))[: round(SHARE_HELD_OUT * num_rows)]] = True
        return held_N

    def rounds(self) -> int:
        if self.hyperparameters.refit_steps == 0:
            return 0
        return 2 if self.hyperparameters.choice == SHARED else 1

    def refit(self, entries: KnownEntries, round_: int) -> tuple[Tensor, Tensor] | None:
        if not self._enough(entries):
            return None
        options = self.hyperparameters
        if options.choice == CATEGORY:
            return self._best(entries)
        if options.choice == SHARED and round_ == 0:
            steps = (_score(entries, *weights) for weights in self._steps(entries))
            self._curves[entries.category] = [_score(entries), *steps]
            return None
        return self._after(entries, options.refit_steps if options.choice == NONE else self._shared_number())

    def scalars(self) -> dict[str, float]:
        changed = [number for number in self._kept.values() if number]
        return {
            "refitted_categories": len(self._kept),
            "changed_categories": len(changed),
            "refit_steps": sum(changed) / max(1, len(changed)),
        }

    def _enough(self, entries: KnownEntries) -> bool:
        held_K, present_K = entries.held_K, entries.present_K
        for of_kind_K in (present_K, ~present_K):
            if not (of_kind_K & ~held_K).any() or (of_kind_K & held_K).sum() < self.hyperparameters.fewest:
                return False
        return True

    def _steps(self, entries: KnownEntries) -> Iterator[tuple[Tensor, Tensor]]:
        options, rows_K = self.hyperparameters, ~entries.held_K
        fit = fitting(
            entries.features_KD[rows_K], entries.present_K[rows_K], entries.weight_D, entries.bias,
            options.refit_rate, options.refit_focus, options.refit_margin,
        )  # fmt: skip
        return islice(fit, options.refit_steps)

    def _best(self, entries: KnownEntries) -> tuple[Tensor, Tensor]:
        """The weights with the highest average precision on held-out rows, the trained ones among them."""
        best, best_score, best_number = (entries.weight_D, entries.bias), _score(entries), 0
        for number, weights in enumerate(self._steps(entries), start=1):
            score = _score(entries, *weights)
            if score > best_score:
                best, best_score, best_number = weights, score, number
            if number - best_number >= self.hyperparameters.patience:
                break
        self._kept[entries.category] = best_number
        return best

    def _shared_number(self) -> int:
        """The number of steps with the highest mean average precision over categories; 0 if none beats the start."""
        sums = [sum(scores) for scores in zip(*self._curves.values(), strict=True)]
        return sums.index(max(sums))

    def _after(self, entries: KnownEntries, number: int) -> tuple[Tensor, Tensor]:
        weights = entries.weight_D, entries.bias
        for weights in islice(self._steps(entries), number):  # noqa: B007 - the last ones count
            pass
        self._kept[entries.category] = number
        return weights


def fitting(
    features_KD: Tensor, present_K: Tensor, weight_D: Tensor, bias: Tensor, rate: float, focus: float, margin: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fit a logistic regression by Adam on all rows at once, and give its weights after each step, without an end.

    The loss is asymmetric (Ridnik et al., ICCV 2021) without a focus on positives, and added up over the rows: Adam
    does not see a common factor.

    Yields:
        The weights (D,) and the bias, a scalar.
    """
    weight_D, bias = weight_D.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight_D, bias], lr=rate)
    while True:
        logits_K = features_KD @ weight_D + bias
        losses_K = torch.where(present_K, asymmetric_present(logits_K, 0), asymmetric_absent(logits_K, focus, margin))
        optimizer.zero_grad()
        losses_K.sum().backward()
        optimizer.step()
        yield weight_D.detach().clone(), bias.detach().clone()


def average_precision(scores_K: Tensor, present_K: Tensor) -> float:
    """The mean, over the positives, of the precision at their ranks; ties keep the order of the rows.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]))  # (1 + 2 / 3) / 2
    0.8333333333333333
    """
    sorted_K = present_K[scores_K.argsort(descending=True, stable=True)].double()
    ranks_K = torch.arange(1, len(sorted_K) + 1, device=sorted_K.device)
    return float((sorted_K * sorted_K.cumsum(dim=0) / ranks_K).sum() / sorted_K.sum())


def _score(entries: KnownEntries, weight_D: Tensor | None = None, bias: Tensor | None = None) -> float:
    """Average precision on the held-out rows, by the trained weights or by others."""
    rows_K = entries.held_K
    weight_D, bias = (entries.weight_D, entries.bias) if weight_D is None or bias is None else (weight_D, bias)
    return average_precision(entries.features_KD[rows_K] @ weight_D + bias, entries.present_K[rows_K])
