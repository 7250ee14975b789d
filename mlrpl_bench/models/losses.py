"""This module holds losses that two or more methods share. They are computed in float32 under autocast too."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN


def partial_bce(logits_BC: Tensor, targets_BC: Tensor, margin: float = 0.0) -> Tensor:
    """Return binary cross-entropy, averaged over all known entries of the batch.

    A target t in [-1, 1] is known where `|t| > margin`. Above, it is the probability that the category is present;
    below, -t is the probability that it is absent. Plain labels are the special case -1, 0, 1. The gradient flows
    into the targets as well, which is how learned blending coefficients learn (SARB, Pu et al., AAAI 2022).

    Durand et al. (CVPR 2019, https://arxiv.org/abs/1902.09720) average per image first; SARB's code and its
    successors average over the batch, which is what this does.

    Returns:
        A scalar; exactly 0, with a gradient of 0, for a batch without any known entry.

    >>> from mlrpl_bench.data.protocol import UNKNOWN
    >>> partial_bce(torch.zeros(1, 3), torch.tensor([[PRESENT, UNKNOWN, ABSENT]]))
    tensor(0.6931)
    """
    targets_BC = targets_BC.float()
    known_BC = targets_BC.abs() > margin
    probabilities_BC = torch.where(targets_BC > margin, targets_BC, 1 + targets_BC)
    losses_BC = F.binary_cross_entropy_with_logits(logits_BC.float(), probabilities_BC, reduction="none")
    return (losses_BC * known_BC).sum() / known_BC.sum().clamp(min=1)


def normalised_bce(
    logits_BC: Tensor, labels_BC: Tensor, slope: float = -4.45, exponent: float = 1.0, offset: float = 5.45
) -> Tensor:
    """Return binary cross-entropy on the known labels, per image and weighted by how many are known.

    With p the share of an image's C labels that is known, the image's loss is g(p) / C times the sum over its known
    labels, where g(p) = slope * p^exponent + offset (Durand et al., CVPR 2019); images are averaged. The default g
    falls from about 5 at p = 0.1 to 1 at p = 1. Exponent -1, slope 1 and offset 0 give each image the mean over its
    known labels.

    Returns:
        A scalar; an image without any known label counts as 0.

    >>> normalised_bce(torch.zeros(1, 4), torch.tensor([[PRESENT, UNKNOWN, ABSENT, UNKNOWN]]))  # 3.225 / 4 * 2 * log 2
    tensor(1.1177)
    """
    known_BC = labels_BC != UNKNOWN
    losses_BC = F.binary_cross_entropy_with_logits(logits_BC.float(), (labels_BC == PRESENT).float(), reduction="none")
    shares_B = known_BC.float().mean(dim=1)
    # An image with nothing known has loss 0, which a negative exponent must not multiply by infinity.
    weights_B = slope * shares_B.clamp(min=1 / labels_BC.shape[1]) ** exponent + offset
    return (weights_B * (losses_BC * known_BC).mean(dim=1)).mean()


def contrastive(
    features_BCD: Tensor,
    labels_BC: Tensor,
    generator: torch.Generator,
    absent_pairs: bool = True,
    subsample: bool = True,
) -> Tensor:
    """Pull a category's features together where two images have it, and apart otherwise (SARB, AAAI 2022, section 3.4).

    For every category and every pair of images whose labels are both known, with cosine similarity s: 1 - s where
    both have the category, 1 + s otherwise. The paper sums; SARB's code averages over the following selection, which
    is what this does. Let m be the number of pairs (over all categories) that both have the category. If m > 0, the
    pairs where one has it are represented by 2m drawn at random plus the m with the largest loss, and so are the
    pairs where none has it; a pair selected twice counts twice, and a smaller set is taken whole. If m = 0, all
    pairs count.

    Everything stays on the device: selections are 0/1/2 weights, because their sizes are only known there.

    Args:
        absent_pairs: whether pairs where no image has the category count.
        subsample: False to average over all pairs.

    Returns:
        A scalar; 0 where there is no pair.
    """
    first_P, second_P = torch.triu_indices(len(features_BCD), len(features_BCD), offset=1, device=features_BCD.device)
    with torch.autocast(features_BCD.device.type, enabled=False):
        unit_CBD = F.normalize(features_BCD.float(), dim=-1, eps=1e-9).transpose(0, 1)
        similarity_CP = (unit_CBD @ unit_CBD.transpose(1, 2))[:, first_P, second_P]
    present_CB, absent_CB = labels_BC.T == PRESENT, labels_BC.T == ABSENT
    both_CP = present_CB[:, first_P] & present_CB[:, second_P]
    mixed_CP = (present_CB[:, first_P] & absent_CB[:, second_P]) | (absent_CB[:, first_P] & present_CB[:, second_P])
    none_CP = absent_CB[:, first_P] & absent_CB[:, second_P]

    losses_CP = torch.where(both_CP, 1 - similarity_CP, 1 + similarity_CP)
    weights_CP = both_CP.float()
    for members_CP in (mixed_CP, none_CP) if absent_pairs else (mixed_CP,):
        if subsample:
            weights_CP = weights_CP + _selection(losses_CP.detach(), members_CP, both_CP.sum(), generator)
        else:
            weights_CP = weights_CP + members_CP
    return (losses_CP * weights_CP).sum() / weights_CP.sum().clamp(min=1)


def _selection(losses_CP: Tensor, members_CP: Tensor, num_both: Tensor, generator: torch.Generator) -> Tensor:
    """Return how often each member counts: 2m at random plus the m with the largest loss; once each if m is 0."""
    draws_CP = torch.rand(members_CP.shape, generator=generator, device=members_CP.device)
    num_random = torch.where(num_both > 0, 2 * num_both, members_CP.numel())
    return _smallest(draws_CP, members_CP, num_random).float() + _smallest(-losses_CP, members_CP, num_both)


def _smallest(keys_CP: Tensor, members_CP: Tensor, count: Tensor) -> Tensor:
    """Marks the members with the `count` smallest keys (all, if there are fewer), without knowing count on the host."""
    order_F = keys_CP.masked_fill(~members_CP, torch.inf).flatten().argsort()
    first_F = torch.arange(len(order_F), device=count.device) < count
    return torch.zeros_like(first_F).scatter_(0, order_F, first_F).view_as(members_CP) & members_CP


def clipped_log_sigmoid(logits_BC: Tensor, floor: float = 1e-5) -> Tensor:
    """Return log(max(sigmoid(x), floor)): what is certain and wrong costs a finite amount and has no gradient.

    >>> clipped_log_sigmoid(torch.tensor([0.0, -50.0])).exp()
    tensor([5.0000e-01, 1.0000e-05])
    """
    return F.logsigmoid(logits_BC.float()).clamp(min=math.log(floor))


def part_of_mean(losses_BC: Tensor, members_BC: Tensor) -> Tensor:
    """Return what the marked entries contribute to the mean over all entries; 0 where none is marked.

    >>> part_of_mean(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, False], [False, True]]))
    tensor(1.2500)
    """
    return torch.where(members_BC, losses_BC, 0).sum() / losses_BC.numel()


def largest(keys_BC: Tensor, members_BC: Tensor, count: int) -> Tensor:
    """Marks the `count` members of a batch with the largest keys, over images and categories; all, if there are fewer.

    >>> largest(torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([[True, False, True]]), count=1)
    tensor([[False, False,  True]])
    """
    return _smallest(-keys_BC, members_BC, torch.full((), count, device=keys_BC.device))


def asymmetric(
    logits: Tensor, present: Tensor, focus_present: float, focus_absent: float, margin: float, floor: float = 1e-8
) -> Tensor:
    """Return -(1 - p)^focus_present log p for present entries, else -q^focus_absent log(1 - q), q = max(p - margin, 0).

    The asymmetric loss (Ridnik et al., ICCV 2021) as SST's code has it for pairs of categories: its weights have a
    gradient, and logarithms end at that of `floor`.

    >>> asymmetric(torch.zeros(2), torch.tensor([True, False]), 1.0, 2.0, margin=0.0)
    tensor([0.3466, 0.1733])
    """
    logits = logits.float()
    # sigmoid(-x) is 1 - p, and stays exact where p is almost 1.
    right = torch.where(present, logits.sigmoid(), ((-logits).sigmoid() + margin).clamp(max=1))
    weights = torch.where(present, (1 - right).pow(focus_present), (1 - right).pow(focus_absent))
    return -weights * right.clamp(min=floor).log()


def asymmetric_present(logits_BC: Tensor, focus: float) -> Tensor:
    """Return -(1 - p)^focus log p (Ridnik et al., ICCV 2021); the weight has no gradient, as in ASL's and CSL's
    code.
    """
    return -torch.sigmoid(-logits_BC).pow(focus).detach() * F.logsigmoid(logits_BC)


def asymmetric_absent(logits_BC: Tensor, focus: float, margin: float) -> Tensor:
    """Return -q^focus log(1 - q) with q = max(p - margin, 0); the weight has no gradient."""
    shifted_BC = (torch.sigmoid(logits_BC) - margin).clamp(min=0)
    # log(1 - q) is that of 1 - p + margin, at most 0; by exponents, it stays exact where 1 - p rounds to 0.
    log_margin_BC = torch.full_like(logits_BC, math.log(margin) if margin else -math.inf)
    log_absent_BC = torch.logaddexp(F.logsigmoid(-logits_BC), log_margin_BC).clamp(max=0)
    return -shifted_BC.pow(focus).detach() * log_absent_BC


def partial_asymmetric(
    logits_BC: Tensor, labels_BC: Tensor, focus_present: float, focus_absent: float, margin: float
) -> Tensor:
    """Return the asymmetric loss, averaged over all known entries of the batch.

    The papers add up. Averaged over unknown entries too, it is so small at 10 % known that a weight decay in the
    gradient outweighs it.

    Returns:
        A scalar; exactly 0, with a gradient of 0, for a batch without any known entry.

    >>> partial_asymmetric(torch.zeros(1, 3), torch.tensor([[PRESENT, UNKNOWN, ABSENT]]), 0.0, 1.0, margin=0.0)
    tensor(0.5199)
    """
    logits_BC, known_BC = logits_BC.float(), labels_BC != UNKNOWN
    present_BC = asymmetric_present(logits_BC, focus_present)
    absent_BC = asymmetric_absent(logits_BC, focus_absent, margin)
    losses_BC = torch.where(labels_BC == PRESENT, present_BC, absent_BC)
    return torch.where(known_BC, losses_BC, 0).sum() / known_BC.sum().clamp(min=1)
