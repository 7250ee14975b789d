"""Query2Label: A Simple Transformer Way to Multi-Label Classification (Liu et al., 2021).

A head without a graph: one learned query a category collects the category's feature from the positions of the
backbone's map, by a transformer (one encoder layer, two decoder layers without self-attention, a code for the place
of each position); a linear classifier of its own reads the category's logit from it.

Differs from the paper: a quarter of its width (`width=2048` is its own, without the projection before it); ResNet-101
with its last stage trained, batch norms of that stage too; the shared recipe, with the head at ten times the rate as
for `ml_decoder` (in the papers' setting the code's 1e-4), but at 3e-3 at most (``head_limit``): at the 8e-3 that this
makes on `scenes` the loss stays where it is; no averaged weights or RandAugment; binary cross-entropy on the known
labels, or its asymmetric loss on them (``q2l_asl``, averaged, without the floor of its logarithms). Narrower on a
narrower backbone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlrpl_bench import (
    Backbone,
    Batch,
    LinearHead,
    Method,
    ParameterGroup,
    Progress,
    Recipe,
    Task,
    UserError,
    parameter,
    register_method,
)
from mlrpl_bench.models.layers import AttentionBlock, groups_with_head_rate
from mlrpl_bench.models.losses import partial_asymmetric, partial_bce


@register_method(
    "q2l",
    idea="One learned query a category collects its feature by a transformer; cross-entropy on known labels.",
    paper="https://arxiv.org/abs/2107.10834",
    differs="a quarter of the width (width); ResNet-101, last stage trained with its batch norms; shared recipe, "
    "head at ten times the rate, up to 3e-3 (head_rate, head_limit); cross-entropy on the known labels; no averaged "
    "weights",
)
@register_method(
    "q2l_asl",
    idea="As q2l, with a loss that forgets easy negatives, on the known labels.",
    differs="a quarter of the width (width); ResNet-101, last stage trained with its batch norms; shared recipe, "
    "head at ten times the rate, up to 3e-3 (head_rate, head_limit); known labels alone, a mean over them instead of a "
    "sum; no floor of logarithms; no averaged weights",
    asymmetric=True,
)
class Query2Label(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        width: int | None = parameter(
            None, "width of the transformer; none for half of the backbone's feature width (paper: 2048)", low=1
        )
        hidden: int | None = parameter(
            None, "width inside its feed-forward parts; none for four times the width, as in the paper", low=1
        )
        heads: int = parameter(4, "heads of the attention; four times their number divides the width", low=1)
        encoder_layers: int = parameter(1, "layers in which positions attend to each other", low=0)
        decoder_layers: int = parameter(2, "layers in which queries attend to positions", low=1)
        dropout: float = parameter(0.1, "probability of dropout", low=0, high=0.9)
        head_rate: float = parameter(10.0, "learning rate of the head, relative to the backbone's", low=0)
        head_limit: float | None = parameter(
            3e-3, "learning rate up to which head_rate raises the backbone's; none for no limit", low=0
        )
        asymmetric: bool = parameter(False, "asymmetric loss instead of cross-entropy")
        focus_present: float = parameter(0.0, "asymmetric: exponent that weighs easy positives down", low=0)
        focus_absent: float = parameter(2.0, "asymmetric: exponent that weighs easy negatives down", low=0)
        margin: float = parameter(0.0, "asymmetric: taken off the scores of negatives", low=0, high=0.5)

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        options, step = hyperparameters, math.lcm(4, hyperparameters.heads)
        width = options.width or max(1, round(backbone.feature_width / 2 / step)) * step
        if width % step:
            raise UserError(
                f"q2l: a width of {width} cannot be divided by {options.heads} heads and by 4, for the code of "
                "positions; choose another width"
            )
        layers = (options.encoder_layers, options.decoder_layers)
        self.head = QueryTransformer(
            backbone.channels,
            len(task.categories),
            width,
            options.hidden or 4 * width,
            options.heads,
            options.dropout,
            *layers,
        )

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.head(self.trained(frozen_BDHW))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW)
        if not options.asymmetric:
            return {"partial_bce": partial_bce(logits_BC, batch.labels_BC)}
        weights = (options.focus_present, options.focus_absent, options.margin)
        return {"asymmetric": partial_asymmetric(logits_BC, batch.labels_BC, *weights)}

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        return groups_with_head_rate(self, self.hyperparameters.head_rate, self.hyperparameters.head_limit)

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.head.attention(self.trained(frozen_BDHW))


class QueryTransformer(LinearHead, nn.Module):
    """The head: maps (B, D, H, W) to logits (B, C).

    Args:
        channels: D; a map of another width than the transformer's is projected first.
        num_categories: C.
        width, hidden, heads, dropout: see `AttentionBlock`.
        encoder_layers: layers in which positions attend to each other.
        decoder_layers: layers in which queries attend to positions.
    """

    def __init__(
        self,
        channels: int,
        num_categories: int,
        width: int,
        hidden: int,
        heads: int,
        dropout: float,
        encoder_layers: int,
        decoder_layers: int,
    ) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, kernel_size=1) if channels != width else nn.Identity()
        self.encoder, self.decoder = (
            nn.ModuleList(AttentionBlock(width, hidden, heads, dropout) for _ in range(number))
            for number in (encoder_layers, decoder_layers)
        )
        for matrix in [p for p in [*self.encoder.parameters(), *self.decoder.parameters()] if p.dim() > 1]:
            nn.init.xavier_uniform_(matrix)
        self.after_decoder = nn.LayerNorm(width)
        self.queries_CE = nn.Parameter(torch.randn(num_categories, width))
        bound = width**-0.5
        self.classifiers_CE = nn.Parameter(torch.empty(num_categories, width).uniform_(-bound, bound))
        self.bias_C = nn.Parameter(torch.empty(num_categories).uniform_(-bound, bound))

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        return (self.inputs(maps_BDHW) * self.classifiers_CE).sum(dim=-1) + self.bias_C

    def linear(self) -> tuple[Tensor, Tensor]:
        return self.classifiers_CE, self.bias_C

    def inputs(self, maps_BDHW: Tensor) -> Tensor:
        values_BPE, keys_BPE = self._encode(maps_BDHW)
        return self.after_decoder(self._decode(self.decoder, values_BPE, keys_BPE)).float()

    def attention(self, maps_BDHW: Tensor) -> Tensor:
        """Where each category's query looks in the last layer, (B, C, H, W)."""
        values_BPE, keys_BPE = self._encode(maps_BDHW)
        states_BCE = self._decode(self.decoder[:-1], values_BPE, keys_BPE)
        last = self.decoder[-1]
        assert isinstance(last, AttentionBlock)
        weights_BCP = last.weights(states_BCE + self.queries_CE, keys_BPE)
        return weights_BCP.unflatten(2, maps_BDHW.shape[2:])

    def _encode(self, maps_BDHW: Tensor) -> tuple[Tensor, Tensor]:
        """The positions' values, and the same with the code of their place, by which they are found."""
        maps_BEHW = self.project(maps_BDHW)
        _, width, height, columns = maps_BEHW.shape
        places_PE = position_code(width, height, columns, maps_BEHW.device).flatten(1).T
        values_BPE = maps_BEHW.flatten(2).transpose(1, 2)
        for block in self.encoder:
            keys_BPE = values_BPE + places_PE
            values_BPE = block(values_BPE, keys_BPE, keys_BPE, values_BPE)
        return values_BPE, values_BPE + places_PE

    def _decode(self, blocks: Iterable[nn.Module], values_BPE: Tensor, keys_BPE: Tensor) -> Tensor:
        """The states of all queries after some layers; 0 before the first."""
        states_BCE = torch.zeros_like(self.queries_CE).expand(len(values_BPE), -1, -1)
        for block in blocks:
            states_BCE = block(states_BCE, states_BCE + self.queries_CE, keys_BPE, values_BPE)
        return states_BCE


def position_code(width: int, height: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of each position's row (the first half of the channels) and column (the second), (E, H, W).

    Rows and columns count from 1 and are scaled so that the last is almost 2 pi; channel k of a half has frequency
    10000^(-2 floor(k / 2) / (E / 2)), sine for even k and cosine for odd k.
    """
    half = width // 2
    channels_K = torch.arange(half, device=device)
    frequencies_K = 10000.0 ** (-2 * (channels_K // 2) / half)

    def code(number: int) -> Tensor:
        places_L = 2 * math.pi * torch.arange(1, number + 1, device=device) / (number + 1e-6)
        angles_KL = frequencies_K[:, None] * places_L
        return torch.where(channels_K[:, None] % 2 == 0, angles_KL.sin(), angles_KL.cos())

    rows_KHW = code(height)[:, :, None].expand(-1, -1, columns)
    columns_KHW = code(columns)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows_KHW, columns_KHW])
