"""What the cells of one setting share at run time: images, the frozen part, and its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.loader import PreparedImages, Reader, normalise
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.masks import Masks
from mlrpl_bench.models.backbones import Backbone

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # imported where one is made: it takes a second

KEEP_FEATURES_BYTES = 2**30
"""The frozen part's output under the test transform never changes; it is kept up to this much memory per split."""


class SharedBatch(NamedTuple):
    """Images, the frozen part's output for them, and their rows; on the device."""

    images_B3HW: Tensor
    frozen_BDHW: Tensor
    index_B: Tensor


class Workbench:
    """Splits, readers, device and backbone, loaded once for any number of cells.

    Args:
        train, test: with complete labels. Only the trainer and the metrics look at them; methods never.
        backbone: its frozen part is shared; every method gets a copy of the trained part.
        fabric: device and precision.
        workers: loader processes; the numbers do not depend on how many.
        masks: what is known of the training labels; by default the reference's masks.
        prepared: by split, images to read instead of the files, for views that take these.
        compiled: whether torch compiles the frozen part and the methods' parts.
    """

    def __init__(
        self,
        train: Split,
        test: Split,
        backbone: Backbone,
        view: ImageTransform,
        fabric: Fabric,
        workers: int = 0,
        masks: Masks | None = None,
        prepared: Mapping[str, PreparedImages] | None = None,
        compiled: bool = False,
    ) -> None:
        self.splits = {"train": train, "test": test}
        self.masks = masks or Masks(train)
        self.fabric = fabric
        backbone.frozen.to(fabric.device).to(memory_format=torch.channels_last).eval()
        self.backbone, self.compiled, self.pixels = backbone, compiled, view.pixels
        if compiled:
            backbone.frozen.compile()
        pin_memory = fabric.device.type == "cuda"
        self.readers = {
            name: Reader(split.image_paths, view, workers, pin_memory, prepared[name] if prepared else None)
            for name, split in self.splits.items()
        }
        self._kept: dict[tuple[str, int], list[SharedBatch]] = {}

    def steps_per_epoch(self, batch: int) -> int:
        """Training steps in an epoch; the last short batch is dropped."""
        return self.readers["train"].steps_per_epoch(batch)

    def training_batches(self, seed: int, epoch: int, batch: int, first_step: int = 0) -> Iterator[SharedBatch]:
        """One epoch of augmented training images from a step on, in the order of (seed, epoch)."""
        for pixels_B3HW, index_B in self.readers["train"].training(seed, epoch, batch, first_step):
            yield self._share(pixels_B3HW, index_B)

    def in_order(self, split: str, batch: int) -> Iterator[SharedBatch]:
        """Every image of a split once, in order, under the test transform; kept in memory if it fits."""
        if (split, batch) in self._kept:
            yield from self._kept[split, batch]
            return
        kept: list[SharedBatch] | None = []
        num_bytes = 0
        for pixels_B3HW, index_B in self.readers[split].in_order(batch):
            shared = self._share(pixels_B3HW, index_B)
            yield shared
            num_bytes += shared.images_B3HW.nbytes + shared.frozen_BDHW.nbytes
            if kept is not None and num_bytes <= KEEP_FEATURES_BYTES:
                kept.append(shared)
            else:
                kept = None
        if kept is not None:
            self._kept[split, batch] = kept

    def _share(self, pixels_B3HW: Tensor, index_B: Tensor) -> SharedBatch:
        images_B3HW = normalise(pixels_B3HW.to(self.fabric.device, non_blocking=True), self.pixels)
        with torch.no_grad(), self.fabric.autocast():
            frozen_BDHW = self.backbone.frozen(images_B3HW)
        return SharedBatch(images_B3HW, frozen_BDHW, index_B.to(self.fabric.device, non_blocking=True))
