"""This module defines a gated graph network over categories."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN


class GatedGraph(nn.Module):
    """Nodes exchange messages along a graph, with the gates of a GRU (Li et al., ICLR 2016; SSGRL's equation 5).

    With state h and adjacency A, every step computes for all nodes at once

        m = [A h ; A^T h]
        z = sigmoid(W_z m + U_z h)            how much is updated
        r = sigmoid(W_r m + U_r h)            how much of the state the candidate sees
        c = tanh(W_h m + U_h (r * h))         the candidate
        h <- (1 - z) * h + z * c

    where each W and each U has its own bias. All steps and nodes share the weights.

    Args:
        width: D of the nodes.
        steps: how often messages are exchanged.
        tied_reset: compute r with U_z, as the code published with SSGRL does; there is no U_r then.
    """

    def __init__(self, width: int, steps: int = 3, tied_reset: bool = False) -> None:
        super().__init__()
        self.steps = steps
        self.tied_reset = tied_reset
        # Matrices that read the same input are stacked into one product. Linear's initial range depends on the
        # input's width alone, so it is the same as for separate ones.
        self.from_messages = nn.Linear(2 * width, 3 * width)  # W_z, W_r, W_h
        self.from_state = nn.Linear(width, width if tied_reset else 2 * width)  # U_z, U_r
        self.from_reset_state = nn.Linear(width, width)  # U_h

    def forward(
        self,
        nodes_BCD: Tensor,
        adjacency_CC: Tensor,
        wanted_N: Tensor | None = None,
        mixed_VBC: Tensor | None = None,
    ) -> Tensor:
        """Return the nodes after the last step, in their shape; (C, D) without a batch is as good.

        Args:
            wanted_N: places in the flattened B x C, the only ones for which the last step is made. The result is then
                (N, D). Steps before need every node, because neighbours hear of it.
            mixed_VBC: bool, if the batch is V versions of the same images: where a node differs from the first
                version's. What the first step computes of all others is then computed once for all versions.
        """
        for step in range(self.steps):
            if step == 0 and mixed_VBC is not None and self.steps > 1:
                of_messages, of_state = self._of_versions(nodes_BCD, adjacency_CC, mixed_VBC)
            else:
                messages_BCF = _messages(nodes_BCD, adjacency_CC)
                if wanted_N is not None and step == self.steps - 1:
                    nodes_BCD, messages_BCF = pick(nodes_BCD, wanted_N), pick(messages_BCF, wanted_N)
                of_messages, of_state = self.from_messages(messages_BCF), self.from_state(nodes_BCD)
            nodes_BCD = self._update(nodes_BCD, of_messages, of_state)
        return nodes_BCD

    def _of_versions(self, nodes_BCD: Tensor, adjacency_CC: Tensor, mixed_VBC: Tensor) -> tuple[Tensor, Tensor]:
        """Return what W and U make of the versions' nodes: of the first version's, plus of the differences from them.

        Both are linear, and few nodes differ: W [A d ; A^T d] is A (W1 d) + A^T (W2 d) with W = [W1 W2].
        """
        others, shape_BC = len(mixed_VBC) - 1, mixed_VBC[1:].flatten(0, 1).shape
        first_BCD, rest_BCD = nodes_BCD[: mixed_VBC.shape[1]], nodes_BCD[mixed_VBC.shape[1] :]
        changed_N = mixed_VBC[1:].flatten().nonzero().squeeze(1)
        difference_ND = pick(rest_BCD - first_BCD.repeat(others, 1, 1), changed_N)

        weights_there, weights_back = self.from_messages.weight.chunk(2, dim=1)
        sent_BCF = _placed(F.linear(difference_ND, torch.cat([weights_there, weights_back])), changed_N, shape_BC)
        with torch.autocast(nodes_BCD.device.type, enabled=False):  # as for the messages themselves
            received_BCF = torch.cat([adjacency_CC, adjacency_CC.T], dim=1) @ torch.cat(
                sent_BCF.float().chunk(2, dim=-1), dim=1
            )
        changes = (received_BCF, _placed(F.linear(difference_ND, self.from_state.weight), changed_N, shape_BC))
        of_first = (self.from_messages(_messages(first_BCD, adjacency_CC)), self.from_state(first_BCD))
        of_messages, of_state = (
            torch.cat([first, first.repeat(others, 1, 1) + change.to(first.dtype)])
            for first, change in zip(of_first, changes, strict=True)
        )
        return of_messages, of_state

    def _update(self, nodes_BCD: Tensor, of_messages: Tensor, of_state: Tensor) -> Tensor:
        """Return the nodes after a gated step of each by itself: any leading dimensions will do.

        Args:
            of_messages: W m + b of all three gates, (B, C, 3 D).
            of_state: U h + b of z and r, (B, C, 2 D), or D where they share it.
        """
        update_BCD, reset_BCD, candidate_BCD = of_messages.chunk(3, dim=-1)
        state_update_BCD, state_reset_BCD = (of_state, of_state) if self.tied_reset else of_state.chunk(2, dim=-1)
        update_BCD = torch.sigmoid(update_BCD + state_update_BCD)
        reset_BCD = torch.sigmoid(reset_BCD + state_reset_BCD)
        candidate_BCD = torch.tanh(candidate_BCD + self.from_reset_state(reset_BCD * nodes_BCD))
        return nodes_BCD + update_BCD * (candidate_BCD - nodes_BCD)


def _messages(nodes_BCD: Tensor, adjacency_CC: Tensor) -> Tensor:
    """Return [A h ; A^T h] of each node, (B, C, 2 D)."""
    # Rows A_1, A^T_1, A_2, A^T_2, ...: one product gives both kinds of message, side by side per node.
    both_ways_KC = torch.stack([adjacency_CC, adjacency_CC.T], dim=1).flatten(0, 1)
    with torch.autocast(nodes_BCD.device.type, enabled=False):
        # A^T h adds up many large conditionals for a frequent category ("person"): too much for 16 bits.
        messages_BKD = both_ways_KC @ nodes_BCD.float()
    return messages_BKD.unflatten(-2, (-1, 2)).flatten(-2)


def pick(values_BCD: Tensor, wanted_N: Tensor) -> Tensor:
    """Return the rows (N, D) at places of the flattened B x C."""
    return values_BCD.flatten(0, 1).index_select(0, wanted_N)


def _placed(rows_NF: Tensor, places_N: Tensor, shape_BC: tuple[int, ...]) -> Tensor:
    """Return zeros (B, C, F) with rows at places of the flattened B x C."""
    spread = rows_NF.new_zeros(shape_BC[0] * shape_BC[1], rows_NF.shape[1])
    return spread.index_copy(0, places_N, rows_NF).unflatten(0, shape_BC)


ESTIMATORS = ("reference", "unbiased")


def cooccurrence(labels_NC: Tensor, estimator: str = "reference") -> Tensor:
    """Return conditional probabilities A_ij ~ P(j present | i present) with A_ii = 1 (SSGRL, ICCV 2019, section 3.3).

    - ``reference`` divides the number of images where both are known present by the number where i is. If labels
      are hidden independently and a share r stays known, this shrinks the entries off the diagonal to r P(j | i).
    - ``unbiased`` divides by the number of images where i is known present and j is known at all; where there is
      no such image the entry is 0.

    A category without a known positive gets the row of the identity. (SARB's code leaves 0 / 0 there, which one
    message later is NaN in every category of every image.)

    Args:
        labels_NC: PRESENT, UNKNOWN or ABSENT.

    Returns:
        (C, C), float32, in [0, 1].

    >>> import torch
    >>> cooccurrence(torch.tensor([[1, 1, 0], [1, 0, -1]]))
    tensor([[1.0000, 0.5000, 0.0000],
            [1.0000, 1.0000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"no estimator {estimator!r}; there are: {', '.join(ESTIMATORS)}")
    present_NC = (labels_NC == PRESENT).float()
    known_NC = (labels_NC != UNKNOWN).float()
    together_CC = present_NC.T @ present_NC
    trials_CC = present_NC.T @ known_NC if estimator == "unbiased" else together_CC.diag()[:, None]
    return (together_CC / trials_CC.clamp(min=1)).fill_diagonal_(1)
