"""This module holds what the cells of one setting share at run time: images, the frozen part, and its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.loader import PreparedImages, Reader, normalise
from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.masks import Masks
from mlrpl_bench.models.backbones import Backbone

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # imported where one is made: it takes a second

KEEP_FEATURES_BYTES = 2**30
"""The frozen part's output under the test transform never changes; it is kept up to this much memory per split."""


KEEP_PASSES = 4
"""At most this many different image batches that cells made are kept during a step, for cells that make the same."""


class SharedBatch(NamedTuple):
    """This holds images, the frozen part's output for them, and their rows; on the device.

    Attributes:
        images_B3HW: float32, normalised.
        frozen_BDHW: the frozen part's output for them.
        index_B: the row of each image in its split.
        strong: by strong view, the same images in it and the frozen part's output for these.
    """

    images_B3HW: Tensor
    frozen_BDHW: Tensor
    index_B: Tensor
    strong: Mapping[StrongView | None, tuple[Tensor, Tensor]] = MappingProxyType({})


class FrozenPart(nn.Module):
    """Sends images through the frozen part; equal images that several cells make in one step go through it once.

    Methods that mix images send the mixtures through the frozen part themselves. Where the draws of two cells of a
    group are equal, so are their mixtures, whatever is known of the labels: same seed, epoch, step and law. Images
    are compared, not draws: another pixel is another pass, so sharing cannot change a number.

    Args:
        module: the frozen part.

    Attributes:
        is_shared: whether there are several cells; else nothing is kept.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.is_shared = False
        self._passes: list[_Pass] = []

    def forward(self, images_B3HW: Tensor, shared: bool = True) -> Tensor:
        """Return the frozen part's output for images.

        Args:
            shared: whether another cell may send the same images at this step.
        """
        if not (self.is_shared and shared) or images_B3HW.requires_grad:  # a gradient belongs to one cell
            return self.module(images_B3HW)
        device = images_B3HW.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        for done in self._passes:
            if done.is_of(images_B3HW, precision):
                return done.frozen_BDHW
        frozen_BDHW = self.module(images_B3HW)
        if len(self._passes) < KEEP_PASSES and not frozen_BDHW.requires_grad:
            self._passes.append(_Pass(images_B3HW, frozen_BDHW, precision))
        return frozen_BDHW

    def forget(self) -> None:
        """Forget the images of the step before."""
        self._passes.clear()


class _Pass:
    """This holds images that went through the frozen part in a number format, and what came out."""

    def __init__(self, images_B3HW: Tensor, frozen_BDHW: Tensor, precision: torch.dtype | None) -> None:
        self.images_B3HW, self.frozen_BDHW, self.precision = images_B3HW, frozen_BDHW, precision
        self._versions = self._versions_now()

    def _versions_now(self) -> tuple[int, int]:
        return self.images_B3HW._version, self.frozen_BDHW._version

    def is_of(self, images_B3HW: Tensor, precision: torch.dtype | None) -> bool:
        """Tell whether these images went through it, and neither they nor the output were changed in place since."""
        return (
            self.precision == precision
            and self._versions == self._versions_now()
            and self.images_B3HW.shape == images_B3HW.shape
            and self.images_B3HW.dtype == images_B3HW.dtype
            and torch.equal(self.images_B3HW, images_B3HW)
        )


class Workbench:
    """This holds splits, readers, device and backbone, loaded once for any number of cells.

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
        if compiled:
            backbone.frozen.compile()
        self.frozen = FrozenPart(backbone.frozen).eval()
        self.backbone, self.compiled, self.pixels = replace(backbone, frozen=self.frozen), compiled, view.pixels
        pin_memory = fabric.device.type == "cuda"
        self.readers = {
            name: Reader(split.image_paths, view, workers, pin_memory, prepared[name] if prepared else None)
            for name, split in self.splits.items()
        }
        self._kept: dict[tuple[str, int], list[SharedBatch]] = {}

    def steps_per_epoch(self, batch: int) -> int:
        """Return the training steps in an epoch; the last short batch is dropped."""
        return self.readers["train"].steps_per_epoch(batch)

    def training_batches(
        self, seed: int, epoch: int, batch: int, first_step: int = 0, strong: Iterable[StrongView | None] = ()
    ) -> Iterator[SharedBatch]:
        """Yield one epoch of augmented training images from a step on, in the order of (seed, epoch).

        Args:
            strong: the strong views that cells ask for; each is made once, None is none.
        """
        views = [view for view in dict.fromkeys(strong) if view is not None]
        for pixels_B3HW, index_B, strong_B3HW in self.readers["train"].training(seed, epoch, batch, first_step, views):
            shared = self._share(pixels_B3HW, index_B)
            seen: dict[StrongView | None, tuple[Tensor, Tensor]]
            seen = {view: self._see(view_B3HW) for view, view_B3HW in zip(views, strong_B3HW, strict=True)}
            yield shared._replace(strong=seen)

    def in_order(self, split: str, batch: int) -> Iterator[SharedBatch]:
        """Yield every image of a split once, in order, under the test transform; kept in memory if it fits."""
        if (split, batch) in self._kept:
            yield from self._kept[split, batch]
            return
        kept: list[SharedBatch] | None = []
        num_bytes = 0
        for pixels_B3HW, index_B, _ in self.readers[split].in_order(batch):
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
        self.frozen.forget()
        return SharedBatch(*self._see(pixels_B3HW), index_B.to(self.fabric.device, non_blocking=True))

    def _see(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images that pixels become, and the frozen part's output for them."""
        images_B3HW = normalise(pixels_B3HW.to(self.fabric.device, non_blocking=True), self.pixels)
        with torch.no_grad(), self.fabric.autocast():
            return images_B3HW, self.frozen(images_B3HW, shared=False)
