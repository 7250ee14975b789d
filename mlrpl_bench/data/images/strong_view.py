"""This module makes a second, strongly augmented view of a training image: a crop of its own, then RandAugment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.utils.randomness import generator_at, seed_of, torch_draws_from


@dataclass(frozen=True)
class StrongView:
    """A strong view is a training view with a crop and mirror of its own, changed by RandAugment (Cubuk et al., 2020).

    RandAugment's law is torchvision's: so many operations one after the other, even over 14, each always applied.

    Attributes:
        operations: the number of operations.
        magnitude: their strength, the place in a range of 31 steps, 0 to 30.
        interpolation: how shears, translations and rotations sample pixels, ``nearest`` (torchvision's default) or
            ``bilinear``.
    """

    operations: int = 2
    magnitude: int = 9
    interpolation: str = "nearest"

    def of(self, image: Image.Image, view: ImageTransform, seed: int, epoch: int, row: int) -> Image.Image:
        """Return the strong view of a decoded image, which depends on its pixels and (seed, epoch, row) alone.

        Args:
            image: decoded or prepared, as `view` takes it.
            view: the training view, which also makes the strong view's crop and mirror.
            seed: the seed of training.
            epoch: the epoch, from 0.
            row: the image's row in the training split.
        """
        image = view.train(image, np.random.default_rng(seed_of("augmentation", seed, epoch, row, "strong")))
        with torch_draws_from(generator_at("RandAugment", seed, epoch, row, "strong")):  # torchvision takes none
            return _rand_augment(self)(image)


@cache
def _rand_augment(strong: StrongView) -> Any:
    from torchvision.transforms import v2  # imported where a strong view is made: it takes a second

    return v2.RandAugment(strong.operations, strong.magnitude, interpolation=v2.InterpolationMode(strong.interpolation))
