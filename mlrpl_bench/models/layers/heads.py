"""This module maps category features to logits: exchange on the label graph, then a linear classifier per category."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.models.finishing import LinearHead
from mlrpl_bench.models.layers.graphs import GatedGraph, pick
from mlrpl_bench.models.method import Method, ParameterGroup


class GraphHead(LinearHead, nn.Module):
    """This is SSGRL's head (Chen et al., ICCV 2019, sections 3.3 and 3.4), called phi by the methods that blend
    features.

    With f the features and h the nodes after the graph network that starts from them,

        o = tanh(W_o [h ; f] + b_o)
        logit_c = w_c . o_c + b_c

    Args:
        width: D of the features.
        adjacency_CC: the label graph; kept as a buffer, not trained.
        steps: see `GatedGraph`.
        tied_reset: see `GatedGraph`.
    """

    adjacency_CC: Tensor

    def __init__(self, width: int, adjacency_CC: Tensor, steps: int = 3, tied_reset: bool = False) -> None:
        super().__init__()
        self.register_buffer("adjacency_CC", adjacency_CC)
        self.graph = GatedGraph(width, steps, tied_reset)
        self.merge = nn.Linear(2 * width, width)
        num_categories, bound = len(adjacency_CC), width**-0.5
        self.classifiers_CD = nn.Parameter(torch.empty(num_categories, width).uniform_(-bound, bound))
        self.bias_C = nn.Parameter(torch.empty(num_categories).uniform_(-bound, bound))

    def forward(
        self,
        features_BCD: Tensor,
        classifiers_CD: Tensor | None = None,
        read_BC: Tensor | None = None,
        mixed_VBC: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, C).

        Args:
            classifiers_CD: in place of the head's own, where a method computes them (KGGR).
            read_BC: bool, where the loss reads a logit. Elsewhere it is 0, without a gradient, and the last step of
                the graph and the classifier are left out: at 10 % known labels a third of the head's work.
            mixed_VBC: where versions of the same images differ, see `GatedGraph`; only together with `read_BC`.
        """
        if classifiers_CD is None:
            classifiers_CD = self.classifiers_CD
        if read_BC is not None:
            return self._read_logits(features_BCD, classifiers_CD, read_BC, mixed_VBC)
        nodes_BCD = self.graph(features_BCD, self.adjacency_CC)
        return self._classify(nodes_BCD, features_BCD, classifiers_CD, self.bias_C)

    def _read_logits(
        self, features_BCD: Tensor, classifiers_CD: Tensor, read_BC: Tensor, mixed_VBC: Tensor | None
    ) -> Tensor:
        wanted_N = read_BC.flatten().nonzero().squeeze(1)
        category_N = wanted_N % read_BC.shape[1]
        nodes_ND = self.graph(features_BCD, self.adjacency_CC, wanted_N, mixed_VBC)
        # Not classifiers_CD[category_N]: its backward pass adds to repeated rows in parallel, in no fixed order.
        classifiers_ND = F.embedding(category_N, classifiers_CD)
        bias_N = F.embedding(category_N, self.bias_C[:, None]).squeeze(1)
        logits_N = self._classify(nodes_ND, pick(features_BCD, wanted_N), classifiers_ND, bias_N)
        return logits_N.new_zeros(read_BC.numel()).index_copy(0, wanted_N, logits_N).view(read_BC.shape)

    def _classify(self, nodes: Tensor, features: Tensor, classifiers: Tensor, biases: Tensor) -> Tensor:
        """Logits of nodes (..., D), each with its feature, classifier and bias."""
        return (self._outputs(nodes, features) * classifiers).sum(dim=-1) + biases

    def _outputs(self, nodes: Tensor, features: Tensor) -> Tensor:
        return torch.tanh(self.merge(torch.cat([nodes, features], dim=-1)))

    def linear(self) -> tuple[Tensor, Tensor]:
        return self.classifiers_CD, self.bias_C

    def inputs(self, features_BCD: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return o of each category, (B, C, D)."""
        return self._outputs(self.graph(features_BCD, self.adjacency_CC), features_BCD)


def pairs(num_categories: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the P = C (C - 1) / 2 pairs of categories, in the order (0, 1), (0, 2), ..., (1, 2), ...

    >>> pairs(3)
    (tensor([0, 0, 1]), tensor([1, 2, 2]))
    """
    first_P, second_P = torch.triu_indices(num_categories, num_categories, offset=1, device=device)
    return first_P, second_P


class PairHead(nn.Module):
    """This gives a logit for each pair of categories: do both occur in this image?

    With category features f, for i < j

        g_c = W1 f_c + b1
        q_ij = w_ij . (W3 relu(W2 [g_i ; g_j] + b2) + b3) + b_ij

    where only w_ij and b_ij are the pair's own. Computed in a shorter form with the same value:

    - W2 [g_i ; g_j] is a part of g_i plus a part of g_j, so W2 is applied once per category, not once per pair.
    - w_ij . (W3 r + b3) is (W3^T w_ij) . r + w_ij . b3, so W3 is applied once per pair, not once per pair and image.
    - Pairs are taken in blocks of first categories. If one block is not enough, each is computed again in the
      backward pass instead of being remembered (COCO's 3160 pairs of 16 images take 200 MB, VG-200's 1.3 GB).

    The sum over the two parts of a pair is an outer one with no index into it: the backward pass of such an index
    would add in an order that changes from run to run.

    Args:
        width: D of the features. W1 has D / 2 rows, W2 and W3 have D.
        num_categories: C, at least 2.
        block_elements: the number of elements that a block's hidden layer may have.
    """

    def __init__(self, width: int, num_categories: int, block_elements: int = 2**25) -> None:
        super().__init__()
        assert num_categories > 1, "one category makes no pair"
        self.block_elements = block_elements
        num_pairs, bound = num_categories * (num_categories - 1) // 2, width**-0.5
        self.reduce = nn.Linear(width, width // 2)  # W1
        self.from_first = nn.Linear(width // 2, width)  # W2's left half and b2
        self.from_second = nn.Linear(width // 2, width, bias=False)  # W2's right half
        for part in (self.from_first, self.from_second):
            nn.init.uniform_(part.weight, -bound, bound)  # as one layer with twice the inputs
        nn.init.uniform_(self.from_first.bias, -bound, bound)
        self.mix = nn.Linear(width, width)  # W3
        self.classifiers_PD = nn.Parameter(torch.empty(num_pairs, width).uniform_(-bound, bound))
        self.bias_P = nn.Parameter(torch.empty(num_pairs).uniform_(-bound, bound))

    def forward(self, features_BCD: Tensor) -> Tensor:
        """Logits (B, P), in the order of `pairs`."""
        reduced_BCD = self.reduce(features_BCD)
        first_BCD, second_BCD = self.from_first(reduced_BCD), self.from_second(reduced_BCD)
        directions_PD = self.classifiers_PD @ self.mix.weight
        constants_P = self.classifiers_PD @ self.mix.bias + self.bias_P

        blocks = self._blocks(*features_BCD.shape)
        remember = len(blocks) == 1 or not torch.is_grad_enabled()
        logits, start_pair = [], 0
        for start, end in blocks:
            rows, columns = slice(start, end), slice(start + 1, None)
            num_pairs = sum(features_BCD.shape[1] - 1 - row for row in range(start, end))
            block = (first_BCD[:, rows], second_BCD[:, columns], directions_PD[start_pair : start_pair + num_pairs])
            start_pair += num_pairs
            logits.append(_block(*block) if remember else checkpoint(_block, *block, use_reentrant=False))
        return torch.cat(logits, dim=1) + constants_P

    def _blocks(self, num_images: int, num_categories: int, width: int) -> list[tuple[int, int]]:
        """Return ranges of first categories; the last category is nobody's first."""
        rows = max(1, self.block_elements // (num_images * num_categories * width))
        return list(pairwise([*range(0, num_categories - 1, rows), num_categories - 1]))


def _block(first_BRD: Tensor, second_BKD: Tensor, directions_PD: Tensor) -> Tensor:
    """Return the logits without constants of R first categories with the K after the first of them, (B, P).

    Row r and column k are a pair where k >= r; the rest of the rectangle is computed for nothing.
    """
    rows_P, columns_P = torch.triu_indices(first_BRD.shape[1], second_BKD.shape[1], device=first_BRD.device)
    directions_RKD = directions_PD.new_zeros(first_BRD.shape[1], second_BKD.shape[1], directions_PD.shape[1])
    directions_RKD = directions_RKD.index_put((rows_P, columns_P), directions_PD)
    hidden_BRKD = torch.relu(first_BRD[:, :, None] + second_BKD[:, None])
    return (hidden_BRKD * directions_RKD).sum(dim=-1)[:, rows_P, columns_P]


def both_present(labels_BC: Tensor) -> Tensor:
    """Return the pair head's targets: whether both categories of a pair are known to be present, bool (B, P).

    An unknown label counts as absent here.
    """
    first_P, second_P = pairs(labels_BC.shape[1], labels_BC.device)
    present_BC = labels_BC == PRESENT
    return present_BC[:, first_P] & present_BC[:, second_P]


def support(pair_logits_BP: Tensor, labels_BC: Tensor) -> Tensor:
    """Return how probable each category is beside those known to be present in the image: the mean of its pairs with
    them.

    A known positive's pair with itself counts as certain. Without a known positive the support is 0.

    Returns:
        (B, C) in [0, 1], float32.
    """
    num_categories = labels_BC.shape[1]
    first_P, second_P = pairs(num_categories, labels_BC.device)
    probabilities_BP = pair_logits_BP.float().sigmoid()
    together_BCC = torch.eye(num_categories, device=labels_BC.device).repeat(len(labels_BC), 1, 1)
    together_BCC[:, first_P, second_P] = probabilities_BP
    together_BCC[:, second_P, first_P] = probabilities_BP
    present_BC = (labels_BC == PRESENT).float()
    with torch.autocast(labels_BC.device.type, enabled=False):
        sums_BC = (together_BCC @ present_BC[..., None]).squeeze(-1)
    return sums_BC / present_BC.sum(dim=1, keepdim=True).clamp(min=1)


class PooledClassifier(LinearHead, nn.Linear):
    """This turns maps (B, D, H, W) to logits (B, C): global average pooling, then a linear classifier."""

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        return super().forward(self.inputs(maps_BDHW))

    def linear(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias

    def inputs(self, maps_BDHW: Tensor) -> Tensor:
        """Return the mean position, (B, D)."""
        return maps_BDHW.mean(dim=(2, 3))


class ClassMaps(nn.Conv2d):
    """Maps (B, D, H, W) to class activation maps (B, C, H, W): a linear classifier at every position.

    Their mean over the positions is `PooledClassifier` of the same weights: pooling and a linear layer can change
    places. What a method does in between is what makes it differ from that classifier.
    """

    def __init__(self, channels: int, num_categories: int) -> None:
        super().__init__(channels, num_categories, kernel_size=1)

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        """Return class activation maps, float32: in bfloat16 many positions tie, and means are off in the third
        digit.
        """
        return super().forward(maps_BDHW).float()


def groups_with_head_rate(method: Method, multiplier: float, raised_to: float | None = None) -> list[ParameterGroup]:
    """Return the backbone's trained part at the recipe's learning rate, and all else, the head, at a multiple of it.

    Args:
        method: its parameters are divided.
        multiplier: of the head's rate.
        raised_to: see `ParameterGroup`.
    """
    body = {id(parameter) for parameter in method.trained.parameters()}
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    return [
        ParameterGroup([parameter for parameter in trained if id(parameter) in body]),
        ParameterGroup(
            [parameter for parameter in trained if id(parameter) not in body], multiplier, raised_to=raised_to
        ),
    ]
