"""This module loads batches of images as tensors; augmentation is seeded by (seed, epoch, row)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.data.images.transforms import USUAL_PIXELS, ImageTransform, PixelFormat
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import generator_at, seed_of

KEEP_DECODED_BYTES = 512 * 2**20
"""Images of small data sets are decoded once and kept, up to this much memory."""


def normalise(pixels_B3HW: Tensor, wanted: PixelFormat = USUAL_PIXELS) -> Tensor:
    """Turn uint8 pixels into float32 by a mean and a deviation per channel, which are ImageNet's by default."""
    mean = torch.tensor(wanted.mean_3, device=pixels_B3HW.device).view(3, 1, 1)
    deviation = torch.tensor(wanted.deviation_3, device=pixels_B3HW.device).view(3, 1, 1)
    return (
        pixels_B3HW.to(torch.float32, copy=True).div_(255).sub_(mean).div_(deviation)
    )  # in place: new memory costs more


def row_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the training rows in an epoch, int64 (num_rows,); it depends on (seed, epoch) alone."""
    return torch.randperm(num_rows, generator=generator_at("order", seed, epoch))


class PixelBatch(NamedTuple):
    """A batch holds uint8 images and the row of each in the split.

    Attributes:
        pixels_B3HW: the images.
        index_B: the row of each.
        strong_B3HW: the same images in the strong views that were asked for, in their order.
    """

    pixels_B3HW: Tensor
    index_B: Tensor
    strong_B3HW: tuple[Tensor, ...] = ()


class PreparedImages(Protocol):
    """A reader takes prepared images through this interface; see `cache.Prepared`. Worker processes get it pickled.

    Attributes:
        kind: the image backend that reads them.
        side: the side in pixels of every image, which is a square.
    """

    kind: str
    side: int

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Image.Image: ...


class Reader:
    """A reader gives batches of one split; an image's pixels depend on (seed, epoch, row) alone, never on the worker.

    Args:
        image_paths: the original files, by row.
        view: the transforms.
        workers: loader processes.
        pin_memory: whether batches come in page-locked memory.
        prepared: read instead of the files; with views that take prepared images, and only with them.
    """

    def __init__(
        self,
        image_paths: Sequence[Path],
        view: ImageTransform,
        workers: int = 0,
        pin_memory: bool = False,
        prepared: PreparedImages | None = None,
    ) -> None:
        assert view.is_prepared == (prepared is not None), f"the view {view.backend} and prepared images go together"
        if prepared is not None:
            assert (prepared.kind, prepared.side) == (view.backend, view.enlarged), "the images are for another view"
            assert len(prepared) == len(image_paths), "the prepared images are those of another split"
        self.batches = _Batches()
        self._loader = DataLoader(
            _Rows(image_paths, view, prepared, copies=max(workers, 1)),
            batch_sampler=self.batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else every pass draws a seed for workers from the global generator
        )
        self._num_rows = len(image_paths)

    def steps_per_epoch(self, batch: int) -> int:
        """Return the training steps in an epoch; the last short batch is dropped."""
        return self._num_rows // batch

    def training(
        self, seed: int, epoch: int, batch: int, first_step: int = 0, strong: Sequence[StrongView] = ()
    ) -> Iterator[PixelBatch]:
        """Yield one epoch in its addressed order from a step on, augmented; the last short batch is dropped.

        Args:
            strong: the strong views that each batch has besides; an image is decoded once for all its views.
        """
        order = row_order(self._num_rows, seed, epoch).tolist()
        whole = self.steps_per_epoch(batch) * batch
        self.batches.addresses = [
            [_Address(row, seed, epoch, tuple(strong)) for row in order[start : start + batch]]
            for start in range(first_step * batch, whole, batch)
        ]
        yield from self.read()

    def in_order(self, batch: int) -> Iterator[PixelBatch]:
        """Yield every row once, in order, with the test transform; nothing is dropped."""
        rows = range(self._num_rows)
        self.batches.addresses = [
            [_Address(row) for row in rows[start : start + batch]] for start in range(0, self._num_rows, batch)
        ]
        yield from self.read()

    def read(self) -> Iterator[PixelBatch]:
        """Yield the batches that `batches` asks for."""
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise type(batch)(*batch.args)  # a new one: raised itself, it would keep this frame and workers alive
            yield batch


class _Address(NamedTuple):
    """This addresses a row; with a seed and an epoch, its training view in that epoch, and strong views of it
    besides.
    """

    row: int
    seed: int = -1
    epoch: int = -1
    strong: tuple[StrongView, ...] = ()


class _Batches:
    """This is the batch sampler: what the main process asks for next (workers keep running between epochs)."""

    addresses: list[list[_Address]]

    def __iter__(self) -> Iterator[list[_Address]]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)


class _Sample(NamedTuple):
    """These are the pixels of an image, its row, and the pixels of its strong views."""

    pixels_HW3: np.ndarray
    row: int
    strong_HW3: list[np.ndarray]


class _Rows(TorchDataset):
    """Pixels by address. Lives here and not in a dataset's file, so that worker processes can unpickle it."""

    def __init__(
        self, image_paths: Sequence[Path], view: ImageTransform, prepared: PreparedImages | None = None, copies: int = 1
    ) -> None:
        self._paths, self._view, self._prepared = image_paths, view, prepared
        self._decoded: dict[int, Image.Image] = {}
        self._room = KEEP_DECODED_BYTES // copies  # each loader process keeps its own

    def __getitem__(self, address: _Address) -> _Sample | UserError:
        try:
            image = self._decode(address.row)
        except UserError as error:
            return error  # raised in a worker process, its one line would drown in the loader's own traceback
        if address.epoch < 0:
            return _Sample(np.asarray(self._view.test(image)), address.row, [])
        place = (address.seed, address.epoch, address.row)
        view = self._view.train(image, np.random.default_rng(seed_of("augmentation", *place)))
        strong = [np.asarray(strong.of(image, self._view, *place)) for strong in address.strong]
        return _Sample(np.asarray(view), address.row, strong)

    def _decode(self, row: int) -> Image.Image:
        if row in self._decoded:
            return self._decoded[row]
        if self._prepared is not None:
            image = self._prepared[row]
        else:
            image = decode(self._paths[row], self._view.decode_at_least)
        size = 3 * image.width * image.height
        if size <= self._room:
            self._room -= size
            self._decoded[row] = image
        return image


def _collate(samples: list[_Sample | UserError]) -> PixelBatch | UserError:
    whole = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        whole.append(sample)
    strong = zip(*(sample.strong_HW3 for sample in whole), strict=True)
    return PixelBatch(
        _stack([sample.pixels_HW3 for sample in whole]),
        torch.tensor([sample.row for sample in whole]),
        tuple(_stack(list(views)) for views in strong),
    )


def _stack(images: list[np.ndarray]) -> Tensor:
    """Return images as one batch; not made contiguous: channels stay last in memory, which convolutions like best."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
