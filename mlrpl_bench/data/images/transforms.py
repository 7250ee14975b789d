"""This module turns a decoded image into the network's square input: the two transforms, and their implementations.

The reference's augmentation: resize to a square (aspect not kept) 8/7 as large as the network's input, crop a square
whose side is drawn from five, resize to the input, mirror half of the images. For 448 pixels these are 512 and sides
of 512, 448, 384, 320 or 256. The test transform resizes to the input. All resizing is Pillow's, on uint8: bicubic, but
for backbones that were trained otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from mlrpl_bench.data.choices import BACKENDS, FAST, PREPARED_JPEG, PREPARED_RAW, REDUCED, REFERENCE
from mlrpl_bench.data.images.decoding import extent

BICUBIC = Image.Resampling.BICUBIC
ENLARGED = 8 / 7

MEAN_3 = (0.485, 0.456, 0.406)
DEVIATION_3 = (0.229, 0.224, 0.225)
INTERPOLATION = "bicubic"
INTERPOLATIONS = (INTERPOLATION, "bilinear")
"""The usual pixels are ImageNet's, resized as in the reference. Some backbones were trained with others."""


class PixelFormat(NamedTuple):
    """A backbone was trained on pixels of this format.

    Attributes:
        mean_3: the mean of each channel, subtracted from pixels in [0, 1].
        deviation_3: the deviation of each channel, by which they are then divided.
        interpolation: how images are resized, ``bicubic`` or ``bilinear``.
    """

    mean_3: tuple[float, ...] = MEAN_3
    deviation_3: tuple[float, ...] = DEVIATION_3
    interpolation: str = INTERPOLATION


USUAL_PIXELS = PixelFormat()


class Crop(NamedTuple):
    """A crop is what is drawn for a training image; side, left and top are pixels of the enlarged square."""

    side: int
    left: int
    top: int
    mirrored: bool


@dataclass(frozen=True)
class ImageTransform:
    """This transform turns a decoded image into the network's square input.

    Attributes:
        size: side of the result, pixels.
        crop_sides: fractions of the enlarged side; one is drawn for each image of the training view.
        flip: whether the training view mirrors half of the images.
        backend: one of `BACKENDS`; all of them make the same draws.
        pixels: what the backbone was trained to be fed. Prepared images do not depend on it: they are bicubic.
    """

    size: int
    crop_sides: tuple[float, ...] = (1.0, 0.875, 0.75, 0.625, 0.5)
    flip: bool = True
    backend: str = REFERENCE
    pixels: PixelFormat = USUAL_PIXELS

    def __post_init__(self) -> None:
        assert self.backend in BACKENDS, f"there is no backend {self.backend!r}, only {', '.join(BACKENDS)}"

    @property
    def enlarged(self) -> int:
        """Return the side of the square that crops are cut out of, in pixels; prepared images have this size."""
        return round(self.size * ENLARGED)

    @property
    def is_prepared(self) -> bool:
        """Tell whether the transform takes prepared images instead of the originals."""
        return self.backend in (PREPARED_JPEG, PREPARED_RAW)

    @property
    def _resample(self) -> Image.Resampling:
        return Image.Resampling[self.pixels.interpolation.upper()]

    @property
    def decode_at_least(self) -> int | None:
        """Return the width and height that a decoded image must have at least, in pixels; None to decode every pixel.

        For `FAST` they are what the smallest crop needs so as not to be enlarged, for `REDUCED` what the whole image
        needs. They are the same for every view of an image, so that an image that is kept decoded serves all of them.
        """
        if self.backend == REDUCED:
            return self.size
        return math.ceil(self.size / min(self.crop_sides)) if self.backend == FAST else None

    def test(self, image: Image.Image) -> Image.Image:
        """Apply the test transform: resize the whole image to the square."""
        return image.resize((self.size, self.size), self._resample, box=(0, 0, *self._extent(image)))

    def train(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Apply the training transform."""
        crop = self.draw(random)
        chain = self._fused if self.backend in (FAST, REDUCED, PREPARED_JPEG) else self._step_by_step
        image = chain(image, crop)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.mirrored else image

    def draw(self, random: np.random.Generator) -> Crop:
        """Return the draws of a training view: crop side, left, top, mirror, in this order."""
        side = round(self.enlarged * self.crop_sides[random.integers(len(self.crop_sides))])
        left, top = random.integers(self.enlarged - side + 1, size=2).tolist()
        return Crop(side, left, top, bool(random.random() < 0.5) and self.flip)

    def _step_by_step(self, image: Image.Image, crop: Crop) -> Image.Image:
        if image.size != (self.enlarged, self.enlarged):
            image = image.resize((self.enlarged, self.enlarged), self._resample)
        image = image.crop((crop.left, crop.top, crop.left + crop.side, crop.top + crop.side))
        return image.resize((self.size, self.size), self._resample)

    def _fused(self, image: Image.Image, crop: Crop) -> Image.Image:
        width, height = self._extent(image)
        # The products come before the division: then right and bottom edges are met exactly, never passed.
        left, right = (x * width / self.enlarged for x in (crop.left, crop.left + crop.side))
        top, bottom = (y * height / self.enlarged for y in (crop.top, crop.top + crop.side))
        return image.resize((self.size, self.size), self._resample, box=(left, top, right, bottom))

    def _extent(self, image: Image.Image) -> tuple[float, float]:
        # Fast takes the whole decoded image, up to a pixel more than the picture: records were trained so.
        return extent(image) if self.backend == REDUCED else image.size
