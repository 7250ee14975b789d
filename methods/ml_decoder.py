"""ML-Decoder: Scalable and Versatile Classification Head (Ridnik et al., 2021).

A head without a graph: queries that are drawn once and never trained collect one feature each from the positions of
the backbone's map, by one layer of a transformer's decoder without self-attention; a linear classifier of its own
reads each category's logit from its query's feature. With more categories than queries, several share one.

Differs from the paper: ResNet-101 with its last stage trained, the shared recipe, and the head at ten times the rate
(``head_rate``: the code's rate for everything); no averaged weights, cutout or RandAugment; binary cross-entropy on
the known labels, or its asymmetric loss on them (``ml_decoder_asl``, averaged instead of added up). Narrower on a
narrower backbone.

`ml_decoder_ilrb` is a control that no paper has: the instance-level half of SARB (`ilrb`; Pu et al., AAAI 2022) on the
features that the queries collect, so that a gain of blending is seen apart from the graph that SARB has.
"""

from __future__ import annotations

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
from mlrpl_bench.models.layers import AttentionBlock, Blending, Version, groups_with_head_rate, supervise
from mlrpl_bench.models.losses import partial_asymmetric, partial_bce


class DecoderMethod(Method):
    """The trained part and a `QueryDecoder`, whose widths follow the backbone's; a subclass adds the losses."""

    @dataclass(frozen=True)
    class Hyperparameters:
        width: int | None = parameter(
            None, "width of the decoder; none for three quarters of the backbone's feature width (paper: 768)", low=1
        )
        hidden: int | None = parameter(
            None, "width inside its feed-forward part; none for twice the backbone's feature width (paper: 2048)", low=1
        )
        heads: int = parameter(8, "heads of the attention; they divide the width", low=1)
        queries: int = parameter(100, "largest number of queries", low=1)
        dropout: float = parameter(0.1, "probability of dropout", low=0, high=0.9)
        head_rate: float = parameter(10.0, "learning rate of the head, relative to the backbone's", low=0)

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        options, nearest = hyperparameters, max(1, round(0.75 * backbone.feature_width / hyperparameters.heads))
        width = options.width or nearest * options.heads
        if width % options.heads:
            raise UserError(f"ml_decoder: {options.heads} heads do not divide a width of {width}; choose another width")
        hidden = options.hidden or 2 * backbone.feature_width
        self.head = QueryDecoder(
            backbone.channels, len(task.categories), options.queries, width, hidden, options.heads, options.dropout
        )

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.head(self.trained(frozen_BDHW))

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        return groups_with_head_rate(self, self.hyperparameters.head_rate)

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.head.attention(self.trained(frozen_BDHW))


@register_method(
    "ml_decoder",
    idea="Fixed queries collect a feature for each category by attention to positions; cross-entropy on known labels.",
    paper="https://arxiv.org/abs/2111.12933",
    differs="ResNet-101, last stage trained; shared recipe, head at ten times the rate (head_rate); cross-entropy on "
    "the known labels; no averaged weights",
)
@register_method(
    "ml_decoder_asl",
    idea="As ml_decoder, with a loss that forgets easy negatives, on the known labels.",
    differs="ResNet-101, last stage trained; shared recipe, head at ten times the rate (head_rate); known labels "
    "alone, a mean over them instead of a sum; no averaged weights",
    asymmetric=True,
)
class MLDecoder(DecoderMethod):
    @dataclass(frozen=True)
    class Hyperparameters(DecoderMethod.Hyperparameters):
        asymmetric: bool = parameter(False, "asymmetric loss instead of cross-entropy")
        focus_present: float = parameter(0.0, "asymmetric: exponent that weighs easy positives down", low=0)
        focus_absent: float = parameter(4.0, "asymmetric: exponent that weighs easy negatives down", low=0)
        margin: float = parameter(0.05, "asymmetric: taken off the scores of negatives", low=0, high=0.5)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW)
        if not options.asymmetric:
            return {"partial_bce": partial_bce(logits_BC, batch.labels_BC)}
        weights = (options.focus_present, options.focus_absent, options.margin)
        return {"asymmetric": partial_asymmetric(logits_BC, batch.labels_BC, *weights)}


@register_method(
    "ml_decoder_ilrb",
    idea="ml_decoder with ilrb's blending: unknown labels are supplied by features of the batch's other images.",
    differs="a control that no paper has: ML-Decoder and the instance-level half of SARB, both as they are here",
)
class BlendedDecoder(DecoderMethod):
    @dataclass(frozen=True)
    class Hyperparameters(DecoderMethod.Hyperparameters):
        learned: bool = parameter(True, "train the coefficient alpha; else it stays at 0.5")
        start: int = parameter(5, "first epoch with blending, of SARB's 20", low=0, high=19)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.blending = Blending(instance=True, prototype=False, learned=hyperparameters.learned)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        features_BCE = self.head.features(self.trained(batch.frozen_BDHW))
        versions = {"partial_bce": Version(features_BCE, batch.labels_BC)}
        if progress.started(self.hyperparameters.start):
            versions |= self.blending(features_BCE, batch.labels_BC, progress.step)
        return supervise(self.head.classify, versions)

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """As for ml_decoder, and alpha at the recipe's rate, as in `ilrb`."""
        alpha = self.blending.alpha
        body, head = groups_with_head_rate(self, self.hyperparameters.head_rate)
        if not alpha.requires_grad:
            return [body, head]
        of_head = [parameter for parameter in head.parameters if parameter is not alpha]
        return [body._replace(parameters=[*body.parameters, alpha]), head._replace(parameters=of_head)]

    def parts_to_compile(self) -> Iterable[nn.Module]:
        return [self.trained, self.blending, *self.head.children()]  # the head is not called as a whole

    def scalars(self) -> dict[str, float | Tensor]:
        return self.blending.scalars()


class QueryDecoder(LinearHead, nn.Module):
    """The head: maps (B, D, H, W) to logits (B, C).

    Args:
        channels: D.
        num_categories: C. With G = min(queries, C) queries, F = C / G categories, rounded up, share one; of the P = G F
            places for a classifier the last ones may be nobody's.
        width, hidden, heads, dropout: see `AttentionBlock`.
    """

    queries_GE: Tensor

    def __init__(
        self, channels: int, num_categories: int, queries: int, width: int, hidden: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        num_queries = min(queries, num_categories)
        self.shared_by = -(-num_categories // num_queries)  # F
        self.embed = nn.Linear(channels, width)
        self.register_buffer("queries_GE", torch.randn(num_queries, width))
        self.dropout = nn.Dropout(dropout)
        self.before_attention = nn.LayerNorm(width)
        self.block = AttentionBlock(width, hidden, heads, dropout)
        drawn_GEF = nn.init.xavier_normal_(torch.empty(num_queries, width, self.shared_by))  # as its code draws them
        self.classifiers_PE = nn.Parameter(drawn_GEF.transpose(1, 2).flatten(0, 1).contiguous())
        self.bias_C = nn.Parameter(torch.zeros(num_categories))

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        states_BGE = self._states(maps_BDHW)
        classifiers_GFE = self.classifiers_PE.unflatten(0, (-1, self.shared_by))
        logits_BC = torch.einsum("bge,gfe->bgf", states_BGE, classifiers_GFE).flatten(1)[:, : len(self.bias_C)]
        return logits_BC.float() + self.bias_C

    def features(self, maps_BDHW: Tensor) -> Tensor:
        """What each category's query collected, (B, C, E); categories that share a query have the same."""
        return self._states(maps_BDHW).repeat_interleave(self.shared_by, dim=1)[:, : len(self.bias_C)]

    def classify(self, features_BCE: Tensor, read_BC: Tensor | None = None, mixed_VBC: Tensor | None = None) -> Tensor:
        """Logits (B, C) of `features`, all of them, whichever are read or mixed: they cost next to nothing."""
        return (features_BCE * self.classifiers_PE[: len(self.bias_C)]).sum(dim=-1).float() + self.bias_C

    def linear(self) -> tuple[Tensor, Tensor]:
        return self.classifiers_PE, self.bias_C

    def inputs(self, maps_BDHW: Tensor) -> Tensor:
        return self.features(maps_BDHW)

    def attention(self, maps_BDHW: Tensor) -> Tensor:
        """Where each category's query looks, (B, C, H, W)."""
        weights_BGP = self.block.weights(self._queries(len(maps_BDHW)), self._positions(maps_BDHW))
        weights_BCP = weights_BGP.repeat_interleave(self.shared_by, dim=1)[:, : len(self.bias_C)]
        return weights_BCP.unflatten(2, maps_BDHW.shape[2:])

    def _states(self, maps_BDHW: Tensor) -> Tensor:
        """The queries' states after the block, (B, G, E)."""
        positions_BPE = self._positions(maps_BDHW)
        states_BGE = self._queries(len(maps_BDHW))
        return self.block(states_BGE, states_BGE, positions_BPE, positions_BPE)

    def _positions(self, maps_BDHW: Tensor) -> Tensor:
        return torch.relu(self.embed(maps_BDHW.flatten(2).transpose(1, 2)))

    def _queries(self, num_images: int) -> Tensor:
        """The queries of each image, normalised; dropout differs from image to image."""
        queries_BGE = self.queries_GE.expand(num_images, -1, -1)
        return self.before_attention(queries_BGE + self.dropout(queries_BGE))
