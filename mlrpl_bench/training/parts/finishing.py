"""This module gathers what a finishing step is given of a trained method, and puts back what it gives.

Features are gathered in passes over the training rows. Where all categories share an image's features, those of every
row with a known label are kept; where each category has its own, only its known entries are, of as many categories at
a time as fit in `MOST_BYTES`: N x C x 1024 numbers of COCO would take 27 GB.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.finishing import FinishingStep, KnownEntries, LinearHead
from mlrpl_bench.models.method import Method
from mlrpl_bench.utils.errors import UserError

MOST_BYTES = 2**30
"""Features of the categories' own are kept up to so many bytes at a time, and of one category at least."""

TOLERANCE = 1e-3
"""Logits and the last layer's product may differ by so much of the largest: the sums have another order."""


class HeadRefit:
    """A head's refit goes through the training rows as often as its step wants, category by category.

    Args:
        method: a method, trained or not.
        step: what refits its last layer.
        labels_NC: the known labels, int8, those of the rows that were held out among them.
        held_N: bool, the rows that were held out.

    Raises:
        UserError: the method has no last linear layer.
    """

    def __init__(self, method: Method, step: FinishingStep, labels_NC: Tensor, held_N: Tensor) -> None:
        self.method, self.step, self.labels_NC, self.held_N = method, step, labels_NC, held_N
        self.head = method.final_layer()
        self.round, self._first = 0, 0
        self._portion: Sequence[int] = ()
        self._gathered: dict[int | None, list[tuple[Tensor, Tensor]]] = {}
        self._fitted: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def wants_pass(self) -> bool:
        """Tell whether the step is to see the training rows (again)."""
        return self.round < self.step.rounds()

    def gather(self, frozen_BDHW: Tensor, index_B: Tensor) -> None:
        """Keep the features of a batch's known entries, of the categories whose turn it is.

        Args:
            index_B: the rows of the images.
        """
        features = last_inputs(self.method, self.head, frozen_BDHW)
        known_BC = self.labels_NC[index_B] != UNKNOWN
        if not self._portion:
            self._portion = self._next_portion(features)
        if features.ndim == 2:
            rows_B = known_BC.any(dim=1)
            self._gathered.setdefault(None, []).append((features[rows_B], index_B[rows_B]))
            return
        for category in self._portion:
            rows_B = known_BC[:, category]
            self._gathered.setdefault(category, []).append((features[rows_B, category], index_B[rows_B]))

    def end_pass(self) -> None:
        """Refit the categories whose features were gathered."""
        for category in self._portion:
            fitted = self.step.refit(self._entries(category), self.round)
            if fitted is None:
                self._fitted.pop(category, None)
            else:
                self._fitted[category] = fitted
        self._first += len(self._portion)
        self._portion, self._gathered = (), {}
        if self._first == self.labels_NC.shape[1]:
            self.round, self._first = self.round + 1, 0

    def put_back(self) -> None:
        """Give the method's last layer the weights that were found, in storage of their own.

        A state that was taken before keeps the trained weights, so that a training that is cut off now goes on there.
        """
        weight, bias = self.head.linear()
        new_CD, new_C = (parameter.detach().clone() for parameter in (weight, bias))
        for category, (weight_D, bias_of_it) in self._fitted.items():
            new_CD[category] = weight_D.detach().view_as(new_CD[category])
            new_C[category] = bias_of_it.detach()
        weight.data, bias.data = new_CD, new_C

    def _next_portion(self, features: Tensor) -> Sequence[int]:
        categories = range(self._first, self.labels_NC.shape[1])
        if features.ndim == 2:
            return categories
        known_C = (self.labels_NC != UNKNOWN).sum(dim=0)[self._first :]
        fits = int((known_C.cumsum(dim=0) * features.shape[-1] * 4 <= MOST_BYTES).sum())
        return categories[: max(1, fits)]

    def _entries(self, category: int) -> KnownEntries:
        gathered = self._gathered.get(category, self._gathered.get(None))
        assert gathered is not None
        features_KD, rows_K = (torch.cat(parts) for parts in zip(*gathered, strict=True))
        labels_K = self.labels_NC[rows_K, category]
        known_K = labels_K != UNKNOWN
        weight, bias = self.head.linear()
        return KnownEntries(
            category,
            features_KD[known_K],
            labels_K[known_K] == PRESENT,
            self.held_N[rows_K[known_K]],
            weight.detach()[category].flatten().clone(),
            bias.detach()[category].clone(),
        )


def refuse_unless_linear(method: Method, head: LinearHead, frozen_BDHW: Tensor) -> None:
    """Refuse a method whose logits are not those of its last layer, before it is trained.

    Its parameters are other ones meanwhile: a layer may be plain only as long as those around it are untrained.

    Raises:
        UserError: see `last_inputs`.
    """
    generator = torch.Generator().manual_seed(0)
    parameters = list(method.parameters())
    before = [parameter.data for parameter in parameters]
    try:
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.data = parameter.data + 0.1 * noise
        last_inputs(method, head, frozen_BDHW)
    finally:
        for parameter, data in zip(parameters, before, strict=True):
            parameter.data = data


def last_inputs(method: Method, head: LinearHead, frozen_BDHW: Tensor) -> Tensor:
    """Return what a method's last layer is given, float32: (B, D), or (B, C, D) where each category has its own.

    Raises:
        UserError: the method's logits are not what this layer makes of it.
    """
    calls = []
    assert isinstance(head, torch.nn.Module)
    handle = head.register_forward_pre_hook(lambda _, *given: calls.append(given), with_kwargs=True)
    try:
        with torch.no_grad(), torch.autocast(frozen_BDHW.device.type, enabled=False):
            logits_BC = method(frozen_BDHW.float())
            if len(calls) == 1:
                ((arguments, keywords),) = calls
                features = head.inputs(*arguments, **keywords)
    finally:
        handle.remove()
    if len(calls) == 1:
        weight, bias = (parameter.detach() for parameter in head.linear())
        weight_CD = weight.flatten(1)[: len(bias)]
        product_BC = (features * weight_CD).sum(-1) if features.ndim == 3 else features @ weight_CD.T
        bound = TOLERANCE * max(1.0, float(logits_BC.abs().max()))
        if float((product_BC + bias - logits_BC).abs().max()) <= bound:
            return features
    raise UserError(
        "its scores are not those of one last linear layer, which a finishing step could refit; name the layer in "
        "final_layer(), or leave the step out"
    )
