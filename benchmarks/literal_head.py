"""SSGRL's head as its equations stand in the papers' public code, to set the package's shorter form beside it.

Nothing is shortened: positions and words are repeated until they meet, every position and category goes through the
M x M layer, the weighted sum multiplies a repeated map, the graph's matrices are repeated over the batch, and every
gate has two layers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

GATES = ("update", "reset", "candidate")
AS_SHORT: Mapping[str, Sequence[str]] = {
    "decoupling.from_position.weight": ["from_position.weight"],
    "decoupling.from_word.weight": ["from_word.weight"],
    "decoupling.mix.weight": ["mix.weight"],
    "decoupling.score.weight": ["score.weight"],
    **{
        f"head.graph.{stacked}.{part}": [f"{layers}_{gate}.{part}" for gate in gates]
        for part in ("weight", "bias")
        for stacked, layers, gates in (
            ("from_messages", "messages", GATES),
            ("from_state", "state", GATES[:2]),
            ("from_reset_state", "state", GATES[2:]),
        )
    },
    "head.merge.weight": ["merge.weight"],
    "head.merge.bias": ["merge.bias"],
    "head.classifiers_CD": ["classifiers_CD"],
    "head.bias_C": ["bias_C"],
}
"""Which parameters here, one above the other, are one of the short form."""


class LiteralHead(nn.Module):
    """Semantic decoupling, gated graph and classifiers; `mix` and `score` have biases, which the short form drops.

    Args:
        width: D. word_width: E. hidden: M.
    """

    adjacency_CC: Tensor

    def __init__(self, width: int, word_width: int, hidden: int, adjacency_CC: Tensor, steps: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("adjacency_CC", adjacency_CC)
        self.from_position = nn.Linear(width, hidden, bias=False)
        self.from_word = nn.Linear(word_width, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        for gate in GATES:
            self.add_module(f"messages_{gate}", nn.Linear(2 * width, width))
            self.add_module(f"state_{gate}", nn.Linear(width, width))
        self.merge = nn.Linear(2 * width, width)
        self.classifiers_CD = nn.Parameter(torch.empty(len(adjacency_CC), width))
        self.bias_C = nn.Parameter(torch.empty(len(adjacency_CC)))

    def load_short(self, short: nn.Module) -> None:
        """Take over the short form's weights; the two biases without a counterpart keep theirs."""
        own, given = dict(self.named_parameters()), dict(short.named_parameters())
        with torch.no_grad():
            for name, parts in AS_SHORT.items():
                for part, value in zip(parts, given[name].chunk(len(parts)), strict=True):
                    own[part].copy_(value)

    def gradients(self) -> dict[str, Tensor]:
        """Under the names of the short form, for its parameters."""
        own = dict(self.named_parameters())
        return {name: torch.cat([_gradient(own[part]) for part in parts]) for name, parts in AS_SHORT.items()}

    def features(self, maps_BDHW: Tensor, words_CE: Tensor) -> Tensor:
        """(B, C, D)."""
        batch, categories, positions = len(maps_BDHW), len(words_CE), maps_BDHW[0, 0].numel()
        maps_BPD = maps_BDHW.flatten(2).transpose(1, 2)
        positions_BPCM = self.from_position(maps_BPD)[:, :, None].repeat(1, 1, categories, 1)
        words_BPCM = self.from_word(words_CE).repeat(batch, positions, 1, 1)
        mixed_BPCM = self.mix(torch.tanh(positions_BPCM * words_BPCM))
        weights_BPC = self.score(mixed_BPCM).squeeze(-1).softmax(dim=1)
        weights_BPCD = weights_BPC[..., None].repeat(1, 1, 1, maps_BPD.shape[-1])
        return (maps_BPD[:, :, None].repeat(1, 1, categories, 1) * weights_BPCD).sum(1)

    def logits(self, features_BCD: Tensor) -> Tensor:
        """(B, C)."""
        nodes_BCD = features_BCD
        for _ in range(self.steps):
            nodes_BCD = self._exchange(nodes_BCD)
        outputs_BCD = torch.tanh(self.merge(torch.cat([nodes_BCD, features_BCD], dim=-1)))
        return (outputs_BCD * self.classifiers_CD).sum(-1) + self.bias_C

    def _exchange(self, nodes_BCD: Tensor) -> Tensor:
        there_BCC, back_BCC = (
            matrix_CC.repeat(len(nodes_BCD), 1, 1) for matrix_CC in (self.adjacency_CC, self.adjacency_CC.T)
        )
        messages_BCF = torch.cat([torch.bmm(there_BCC, nodes_BCD), torch.bmm(back_BCC, nodes_BCD)], dim=-1)
        update_BCD = torch.sigmoid(self._meet("update", messages_BCF, nodes_BCD))
        reset_BCD = torch.sigmoid(self._meet("reset", messages_BCF, nodes_BCD))
        candidate_BCD = torch.tanh(self._meet("candidate", messages_BCF, reset_BCD * nodes_BCD))
        return (1 - update_BCD) * nodes_BCD + update_BCD * candidate_BCD

    def _meet(self, gate: str, messages_BCF: Tensor, nodes_BCD: Tensor) -> Tensor:
        met_BCD: Tensor = getattr(self, f"messages_{gate}")(messages_BCF) + getattr(self, f"state_{gate}")(nodes_BCD)
        return met_BCD


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
