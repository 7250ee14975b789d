"""From image files to tensors: decoding, the two transforms, and readers that give batches by address.

The reference's augmentation: resize to a square (aspect not kept) 8/7 as large as the network's input, crop a square
whose side is drawn from five, resize to the input, mirror half of the images. For 448 pixels these are 512 and sides
of 512, 448, 384, 320 or 256. The test transform resizes to the input. All resizing is Pillow's bicubic, on uint8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mlrpl_bench.errors import UserError
from mlrpl_bench.randomness import generator_at, seed_of

BICUBIC = Image.Resampling.BICUBIC
ENLARGED = 8 / 7
KEEP_DECODED_BYTES = 512 * 2**20
"""Images of small data sets are decoded once and kept, up to this much memory."""

MEAN_3 = (0.485, 0.456, 0.406)
DEVIATION_3 = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class View:
    """How a decoded image becomes the network's square input.

    Attributes:
        size: side of the result, pixels.
        crop_sides: fractions of the enlarged side; one is drawn for each image of the training view.
        flip: whether the training view mirrors half of the images.
    """

    size: int
    crop_sides: tuple[float, ...] = (1.0, 0.875, 0.75, 0.625, 0.5)
    flip: bool = True

    def test(self, image: Image.Image) -> Image.Image:
        """The test transform: the whole image, resized to the square."""
        return image.resize((self.size, self.size), BICUBIC)

    def train(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """The training transform; the draws are crop side, left, top, mirror, in this order."""
        enlarged = round(self.size * ENLARGED)
        side = round(enlarged * self.crop_sides[random.integers(len(self.crop_sides))])
        left, top = random.integers(enlarged - side + 1, size=2).tolist()
        mirrored = bool(random.random() < 0.5) and self.flip
        if image.size != (enlarged, enlarged):
            image = image.resize((enlarged, enlarged), BICUBIC)
        image = image.crop((left, top, left + side, top + side)).resize((self.size, self.size), BICUBIC)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def decode(path: Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        UserError: the file is missing, damaged or no image; the line names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist; check the data folder") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image {path} cannot be decoded ({error}); replace the file") from error


def normalise(pixels_B3HW: Tensor) -> Tensor:
    """uint8 pixels to float32 with ImageNet's mean and deviation per channel."""
    mean = torch.tensor(MEAN_3, device=pixels_B3HW.device).view(3, 1, 1)
    deviation = torch.tensor(DEVIATION_3, device=pixels_B3HW.device).view(3, 1, 1)
    return (pixels_B3HW.float() / 255 - mean) / deviation


def row_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """The order of the training rows in an epoch: a function of (seed, epoch) alone."""
    return torch.randperm(num_rows, generator=generator_at("order", seed, epoch))


class PixelBatch(NamedTuple):
    """uint8 images, and the rows of the split that they are."""

    pixels_B3HW: Tensor
    index_B: Tensor


class Reader:
    """Batches of one split. What an image looks like depends on its address only, never on the worker."""

    def __init__(self, image_paths: Sequence[Path], view: View, workers: int = 0, pin_memory: bool = False) -> None:
        self._batches = _Batches()
        self._loader = DataLoader(
            _Rows(image_paths, view, copies=max(workers, 1)),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else every pass draws a seed for workers from the global generator
        )
        self._num_rows = len(image_paths)

    def steps_per_epoch(self, batch: int) -> int:
        """Training steps in an epoch; the last short batch is dropped."""
        return self._num_rows // batch

    def training(self, seed: int, epoch: int, batch: int) -> Iterator[PixelBatch]:
        """One epoch in its addressed order, augmented; the last short batch is dropped."""
        order = row_order(self._num_rows, seed, epoch).tolist()
        whole = self.steps_per_epoch(batch) * batch
        self._batches.addresses = [
            [_Address(row, seed, epoch) for row in order[start : start + batch]] for start in range(0, whole, batch)
        ]
        yield from self._read()

    def in_order(self, batch: int) -> Iterator[PixelBatch]:
        """Every row once, in order, with the test transform; nothing is dropped."""
        rows = range(self._num_rows)
        self._batches.addresses = [
            [_Address(row) for row in rows[start : start + batch]] for start in range(0, self._num_rows, batch)
        ]
        yield from self._read()

    def _read(self) -> Iterator[PixelBatch]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise UserError(*batch.args)  # a new one: raised itself, it would keep this frame and the workers alive
            yield batch


class _Address(NamedTuple):
    """A row; with a seed and an epoch, its training view in that epoch."""

    row: int
    seed: int = -1
    epoch: int = -1


class _Batches:
    """The batch sampler: what the main process asks for next (workers keep running between epochs)."""

    addresses: list[list[_Address]]

    def __iter__(self) -> Iterator[list[_Address]]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)


class _Rows(TorchDataset):
    """Pixels by address. Lives here and not in a dataset's file, so that worker processes can unpickle it."""

    def __init__(self, image_paths: Sequence[Path], view: View, copies: int = 1) -> None:
        self._paths, self._view = image_paths, view
        self._decoded: dict[int, Image.Image] = {}
        self._room = KEEP_DECODED_BYTES // copies  # each loader process keeps its own

    def __getitem__(self, address: _Address) -> tuple[np.ndarray, int] | UserError:
        try:
            image = self._decode(address.row)
        except UserError as error:
            return error  # raised in a worker process, its one line would drown in the loader's own traceback
        if address.epoch < 0:
            image = self._view.test(image)
        else:
            random = np.random.default_rng(seed_of("augmentation", address.seed, address.epoch, address.row))
            image = self._view.train(image, random)
        return np.asarray(image), address.row

    def _decode(self, row: int) -> Image.Image:
        if row in self._decoded:
            return self._decoded[row]
        image = decode(self._paths[row])
        size = 3 * image.width * image.height
        if size <= self._room:
            self._room -= size
            self._decoded[row] = image
        return image


def _collate(samples: list[tuple[np.ndarray, int] | UserError]) -> PixelBatch | UserError:
    whole = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        whole.append(sample)
    pixels_BHW3 = torch.from_numpy(np.stack([pixels for pixels, _ in whole]))
    # Not made contiguous: channels stay last in memory, which convolutions like best.
    return PixelBatch(pixels_BHW3.permute(0, 3, 1, 2), torch.tensor([row for _, row in whole]))
