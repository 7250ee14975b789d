"""This module defines a method and all it is given: `Task` before training, `Batch` and `Progress` while training.

A method owns its model and its losses. The loop, the optimiser, the device and the order of the data are the
trainer's, the same for every method. Complete training labels never come near: `Task` and `Batch` are built after
the protocol has hidden what is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlrpl_bench.data.dataset import Preset
from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.finishing import FinishingStep, LinearHead
from mlrpl_bench.utils.errors import UserError

RAW, AVERAGED = "raw", "averaged"
"""These are the weights that the optimiser moves, and their moving average, see `Recipe.ema`."""


@dataclass(frozen=True, eq=False)
class Task:
    """A task holds what a method may know before training.

    Attributes:
        categories: C names.
        labels_NC: int8, after hiding, in the order of `Batch.index_B`.
        known_ratio: the share of all entries that the method is to see, in (0, 1]: the cell's ratio, times the share of
            the labels that were given at all, times the share of the images that no finishing step holds out.
        word_vectors_CE: float32.
    """

    categories: tuple[str, ...]
    labels_NC: Tensor
    known_ratio: float
    word_vectors_CE: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch holds what a method may know at a training step.

    Attributes:
        images_B3HW: float32, normalised.
        frozen_BDHW: the frozen part's output for them (the images themselves when nothing is frozen).
        labels_BC: int8, after hiding.
        index_B: int64, the row of each image in the training set.
        generator: the only source of randomness; addressed by (seed, epoch, step), on the tensors' device.
        strong_images_B3HW: the strong view of each image, normalised, at training steps of a method that asks for one
            (`Method.strong_view`); else None.
        strong_BDHW: the frozen part's output for these; else None.
    """

    images_B3HW: Tensor
    frozen_BDHW: Tensor
    labels_BC: Tensor
    index_B: Tensor
    generator: torch.Generator
    strong_images_B3HW: Tensor | None = None
    strong_BDHW: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """Progress tells how far training is; it scales schedules, written for the papers' 20 epochs, to the run's length.

    Attributes:
        epoch: the present epoch, from 0.
        epochs: the training length.
        step: the step within the epoch, from 0.
        steps_per_epoch: the number of steps in an epoch.
    """

    epoch: int
    epochs: int
    step: int = 0
    steps_per_epoch: int = 1

    def at(self, epoch_of_20: int) -> int:
        """Return the epoch of this run that stands for an epoch index of the papers' 20.

        >>> Progress(epoch=0, epochs=10).at(5), Progress(epoch=0, epochs=20).at(5)
        (2, 5)
        """
        return round(epoch_of_20 * self.epochs / 20)

    def started(self, epoch_of_20: int) -> bool:
        """Tell whether that epoch has come."""
        return self.epoch >= self.at(epoch_of_20)

    def due(self, first: int, every: int) -> bool:
        """Tell whether this is one of the epochs first, first + every, ... of the papers' 20; at most once an epoch.

        >>> [epoch for epoch in range(8) if Progress(epoch, epochs=8).due(5, every=5)]
        [2, 4, 6]
        """
        return self.epoch in {self.at(epoch) for epoch in range(first, 20, every)}

    def epoch_of_20(self) -> float:
        """Return the position in the papers' 20 epochs of this run's present epoch, in [0, 20)."""
        return self.epoch * 20 / self.epochs

    def fraction_of_epoch(self) -> float:
        """Return the part of the present epoch that is behind us, in [0, 1)."""
        return self.step / self.steps_per_epoch


LATER_FIELDS = ("ema", "scored")
"""These fields of a recipe came later than the first records; a key has them only where they are not usual."""


@dataclass(frozen=True)
class Recipe:
    """A recipe says how the trainer optimises a method.

    Attributes:
        optimizer: ``adam`` or ``sgd`` (momentum 0.9).
        lr: the learning rate, which the preset's multiplier changes.
        weight_decay: weight of the L2 penalty, a part of the gradient as in the papers (Adam, not AdamW).
        schedule: ``step`` (divided by 10 after half of the epochs), ``one_cycle`` or ``constant``.
        epochs: the training length, or None for the dataset preset's, so that methods are compared at equal length.
        batch: the images per step, or None for the dataset preset's.
        grad_clip: largest norm of the gradient, or None.
        ema: the time constant of averaged weights in epochs, at the papers' 20 epochs (`Progress` says how these scale
            to a run's length), or None for no averaged weights.
        scored: whose scores are the row's where there are averaged weights: ``averaged`` or ``raw``. The mAP of the
            others' last epoch stands beside it in a table of its own.
    """

    optimizer: str = "adam"
    lr: float = 1e-5
    weight_decay: float = 5e-4
    schedule: str = "step"
    epochs: int | None = None
    batch: int | None = None
    grad_clip: float | None = None
    ema: float | None = None
    scored: str = AVERAGED

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the usual values of later fields, so that a key is what it was before."""
        later = {name: Recipe.__dataclass_fields__[name].default for name in LATER_FIELDS}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    def decay(self, steps_per_epoch: int) -> float:
        """Return the share of the averaged weights that stays at a step: exp(-1 / T) for a time constant of T steps.

        >>> round(Recipe(ema=2.0, epochs=10).decay(steps_per_epoch=50), 4)  # 2 epochs of 20 are 1 of 10
        0.9802
        """
        assert self.ema is not None and self.epochs is not None
        return math.exp(-20 / (self.ema * self.epochs * steps_per_epoch))

    def rate_factor(self, progress: Progress) -> float:
        """Return the factor on the learning rate at a step; a function of the position alone."""
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return 0.1 if progress.epoch >= max(1, progress.at(10)) else 1.0
        assert self.schedule == "one_cycle", f"no schedule {self.schedule!r}; there are: step, one_cycle, constant"
        position = (progress.epoch + progress.fraction_of_epoch()) / progress.epochs
        rise = 0.3  # from 1/25 up to 1 in the first 30 %, then down to nothing, both along a cosine
        if position < rise:
            return 1 - 0.96 * (1 + math.cos(math.pi * position / rise)) / 2
        return (1 + math.cos(math.pi * (position - rise) / (1 - rise))) / 2

    def resolve(self, preset: Preset, lr_factor: float = 1.0) -> Recipe:
        """Return the recipe with the preset's epochs, batch and learning rate multiplier filled in.

        Args:
            lr_factor: a row's own factor on the learning rate, besides the preset's.
        """
        return replace(
            self,
            lr=self.lr * (preset.lr_multiplier * lr_factor),
            epochs=self.epochs or preset.epochs,
            batch=self.batch or preset.batch,
        )


class ParameterGroup(NamedTuple):
    """A parameter group holds parameters that share a learning rate and a weight decay.

    Attributes:
        parameters: what the optimiser changes.
        lr_multiplier: factor on the recipe's learning rate.
        weight_decay: None for the recipe's.
        raised_to: the learning rate up to which a multiplier above 1 raises the recipe's; None for as far as it goes.
    """

    parameters: list[nn.Parameter]
    lr_multiplier: float = 1.0
    weight_decay: float | None = None
    raised_to: float | None = None

    def learning_rate(self, recipe_rate: float) -> float:
        """Return the group's learning rate before the schedule.

        >>> head = ParameterGroup([], lr_multiplier=10.0, raised_to=1e-4)
        >>> head.learning_rate(5e-6), head.learning_rate(2e-5), head.learning_rate(3e-4)
        (5e-05, 0.0001, 0.0003)
        """
        rate = recipe_rate * self.lr_multiplier
        return rate if self.raised_to is None else min(rate, max(recipe_rate, self.raised_to))


class Method(nn.Module):
    """This is a method: its model, its losses, and, if it needs them, its hooks.

    A subclass is registered with ``@register_method(name, ...)``. State that training needs (prototypes, banks,
    tables) lives in buffers or ``get_extra_state``, so that a resumed run is the same run.
    """

    @dataclass(frozen=True)
    class Hyperparameters:
        """These are fields made with `hyperparameters.parameter`; ``--set name=value`` changes them and the cell's
        key.
        """

    recipe: ClassVar[Recipe] = Recipe()

    finishing: ClassVar[type[FinishingStep] | None] = None
    """This step follows after the last epoch; the registry sets it for a name such as ``ssgrl+cft``."""

    may_lack_gradient: ClassVar[tuple[str, ...]] = ()
    """These parameters may go without a gradient for long, by the design of the method's paper."""

    def __init__(self, backbone: Backbone, task: Task, hyperparameters) -> None:
        super().__init__()
        self.hyperparameters = hyperparameters
        self.trained = backbone.trained
        # A plain attribute of a dataclass: the frozen part is shared and belongs to no method's state.
        self.backbone = backbone

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        """Return logits (B, C) for the frozen part's output."""
        raise NotImplementedError

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return named scalar loss terms, weights included; the trainer adds them up, logs and plots each."""
        raise NotImplementedError

    def strong_view(self) -> StrongView | None:
        """Return the strong view that every batch of a training step is to have besides; None for no second view.

        It is asked once, before training. The view is made and sent through the frozen part once for all methods of a
        group that ask for the same, and adding it changes no other method's numbers.
        """
        return None

    def passes(self, progress: Progress) -> bool:
        """Tell whether the method wants to see the whole training set before this epoch."""
        return False

    def observe(self, batch: Batch) -> None:
        """Take in one batch of such a pass: eval mode, no gradient, test transform, row order, nothing dropped."""

    def end_pass(self, generator: torch.Generator) -> None:
        """End a pass: cluster, relabel and so on; the generator is on the CPU."""

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """Group the parameters for the optimiser; by default they are one group with the recipe's settings."""
        return [ParameterGroup([p for p in self.parameters() if p.requires_grad])]

    def parts_to_compile(self) -> Iterable[nn.Module]:
        """Name the modules that ``--compile`` may replace by a compiled form; they must be called as modules."""
        return self.children()

    def after_step(self) -> None:
        """Do what follows each optimiser step, such as clamps and moving averages."""

    def scalars(self) -> dict[str, float | Tensor]:
        """Return numbers to plot (alpha, thresholds, pseudo-label counts); they are read once an epoch."""
        return {}

    def pseudo_labels_NC(self) -> NDArray[np.int8] | None:
        """Return the labels trained on at present, int8 (N, C), if the method fills in unknown ones, else None.

        The trainer's side counts right and wrong against the hidden truth; a method never can.
        """
        return None

    def attention(self, frozen_BDHW: Tensor) -> Tensor | None:
        """Return where each category looks: non-negative maps (B, C, H, W), or None if the method has no such maps."""
        return None

    def final_layer(self) -> LinearHead:
        """Return the linear layer that gives the logits, which a finishing step (``+cft``) may refit after training.

        By default it is the method's only module that is a `LinearHead`, as the heads of `models.layers` are.

        Raises:
            UserError: there is none, or there are several.
        """
        found = [module for module in self.modules() if isinstance(module, LinearHead)]
        if len(found) != 1:
            raise UserError(
                f"it has {len(found) or 'no'} last linear layer{'s' * (len(found) > 1)}, and a finishing step refits "
                "one; name it in final_layer(), or leave the step out"
            )
        return found[0]
