"""SpliceMix: A Cross-scale and Semantic Blending Augmentation Strategy (Wang et al., IEEE TMM 2025; arXiv 2311.15200).

To every four images of a batch comes one that is a grid of two, four or six of them, shrunken, with the union of their
labels; now and then cells are left empty. `splicemix_cl` also asks each cell of such an image's map to be scored like
the whole image that the cell shows ("consistency learning").

Differs from the paper: labels are partial, so the union has three values (an empty cell counts as absent; what is
unknown in one cell and present in none is unknown); average pooling (``pool=max`` is the paper's, which `splicemix_cl`
takes); the shared recipe. Consistency targets have no gradient, as in the code but for data sets of 20 categories.
Where a map's sides cannot be divided by the grid it is enlarged to the next size at which they can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlrpl_bench import UNKNOWN, Backbone, Batch, Method, Progress, Recipe, Task, parameter, register_method
from mlrpl_bench.models.layers import EpochMeans, union
from mlrpl_bench.models.losses import partial_bce

MEAN, MAX = "mean", "max"
GRIDS = ((0.3, 1, 2), (0.7, 2, 2), (1.0, 2, 3))
"""Up to which of an even draw a grid is chosen, its rows and columns; unequal ones are turned half of the time."""


class Splicing(NamedTuple):
    """A draw says which images of a batch the M spliced ones show, cell by cell, row by row.

    Attributes:
        rows, columns: of the grid.
        members_MG: int64, rows of the batch.
        is_kept_MG: bool; the other cells are empty.
    """

    rows: int
    columns: int
    members_MG: Tensor
    is_kept_MG: Tensor


@register_method(
    "splicemix",
    idea="Adds to each batch images that are grids of shrunken images of the batch, with the union of their labels.",
    paper="https://arxiv.org/abs/2311.15200",
    differs="three-valued union of labels; average pooling (pool); shared recipe",
)
@register_method(
    "splicemix_cl",
    idea="As splicemix; each cell of a grid's map is also to be scored like the whole image that it shows.",
    differs="three-valued union of labels; shared recipe; consistency targets never have a gradient",
    pool=MAX,
    consistency=1.0,
)
class SpliceMix(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        pool: str = parameter(MEAN, "what of a map is classified: its mean or its maximum", choices=(MEAN, MAX))
        images_per_mixture: int = parameter(4, "number of images for which one spliced image is added", low=1)
        dropping: float = parameter(0.3, "probability that a batch's spliced images have empty cells", low=0, high=1)
        consistency: float = parameter(0.0, "weight of the cells' agreement with the whole images", low=0)

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.classifier = nn.Linear(backbone.channels, len(task.categories))
        self.means = EpochMeans("cells", "empty_share", "known_share_of_mixtures")

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self._classify(self.trained(frozen_BDHW))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, num_images = self.hyperparameters, len(batch.labels_BC)
        num_mixed = num_images // options.images_per_mixture
        if not num_mixed:
            terms = {"partial_bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}
            return terms | ({"consistency": 0 * terms["partial_bce"]} if options.consistency else {})
        splicing = draw(num_images, num_mixed, options.dropping, batch.generator)
        labels_MC = union(batch.labels_BC, splicing.members_MG, splicing.is_kept_MG)
        self._note(labels_MC, splicing, progress)
        with torch.no_grad():
            mixed_MDHW = self.backbone.frozen(splice(batch.images_B3HW, splicing)).to(batch.frozen_BDHW.dtype)
        maps_NDHW = self.trained(torch.cat([batch.frozen_BDHW, mixed_MDHW]))
        logits_NC = self._classify(maps_NDHW)
        terms = {"partial_bce": partial_bce(logits_NC, torch.cat([batch.labels_BC, labels_MC]))}
        if options.consistency:
            cells_KDHW = cells(maps_NDHW[num_images:], splicing.rows, splicing.columns)
            loss = consistency(self._classify(cells_KDHW), logits_NC[:num_images], splicing)
            terms["consistency"] = options.consistency * loss
        return terms

    def _classify(self, maps_BDHW: Tensor) -> Tensor:
        if self.hyperparameters.pool == MAX:
            return self.classifier(maps_BDHW.amax(dim=(2, 3)))
        return self.classifier(maps_BDHW.mean(dim=(2, 3)))

    def _note(self, labels_MC: Tensor, splicing: Splicing, progress: Progress) -> None:
        """Keep what is only reported."""
        self.means.update(
            progress.step,
            cells=torch.tensor(float(splicing.rows * splicing.columns), device=labels_MC.device),
            empty_share=(~splicing.is_kept_MG).float().mean(),
            known_share_of_mixtures=(labels_MC != UNKNOWN).float().mean(),
        )

    def scalars(self) -> dict[str, float | Tensor]:
        return self.means.scalars()


def draw(num_images: int, num_mixed: int, dropping: float, generator: torch.Generator) -> Splicing:
    """Draw a batch's grid, whether and how many of each mixture's cells are empty, and which images the cells show.

    Cells are filled from random orders of the batch, one after the other; a mixture keeps one cell at least.

    Args:
        num_mixed: M, the number of spliced images.
        dropping: the probability that there are empty cells: any number of them from 1 to all but one, evenly.
    """
    device = generator.device
    grid, turned, dropped, share = torch.rand(4, generator=generator, device=device).tolist()  # shapes depend on them
    rows, columns = next((rows, columns) for bound, rows, columns in GRIDS if grid < bound)
    if rows != columns and turned < 0.5:
        rows, columns = columns, rows
    num_cells = rows * columns
    num_empty = 1 + int(share * (num_cells - 1)) if dropped < dropping else 0
    orders = [
        torch.randperm(num_images, generator=generator, device=device)
        for _ in range(-(-num_mixed * num_cells // num_images))
    ]
    members_MG = torch.cat(orders)[: num_mixed * num_cells].view(num_mixed, num_cells)
    places_MG = torch.rand(num_mixed, num_cells, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    return Splicing(rows, columns, members_MG, places_MG >= num_empty)


def splice(images_B3HW: Tensor, splicing: Splicing) -> Tensor:
    """The spliced images (M, 3, H, W): shrunken ones in their cells; empty cells are 0, the mean colour.

    Resized without antialiasing, as in the code; the grid too, where its cells do not fill the image.
    """
    rows, columns, members_MG, is_kept_MG = splicing
    height, width = images_B3HW.shape[2] // rows, images_B3HW.shape[3] // columns
    small_B3HW = _resize(images_B3HW, height, width)
    cells_MG3HW = small_B3HW[members_MG].masked_fill(~is_kept_MG[..., None, None, None], 0)
    grid_MRQ3HW = cells_MG3HW.view(-1, rows, columns, 3, height, width)
    grid_M3HW = grid_MRQ3HW.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, rows * height, columns * width)
    return _resize(grid_M3HW, *images_B3HW.shape[2:]).contiguous(memory_format=torch.channels_last)


def cells(maps_MDHW: Tensor, rows: int, columns: int) -> Tensor:
    """The cells of maps, row by row, (M * rows * columns, D, h, w); maps are enlarged where they cannot be divided."""
    height, width = (-(-side // cut) * cut for side, cut in zip(maps_MDHW.shape[2:], (rows, columns), strict=True))
    maps_MDHW = _resize(maps_MDHW, height, width)
    num_maps, channels = maps_MDHW.shape[:2]
    maps_MDRHQW = maps_MDHW.reshape(num_maps, channels, rows, height // rows, columns, width // columns)
    return maps_MDRHQW.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // rows, width // columns)


def consistency(cell_logits_KC: Tensor, logits_BC: Tensor, splicing: Splicing) -> Tensor:
    """Cross-entropy of the cells' scores to those of the whole images, a mean over all cells; empty ones count as 0.

    The whole images' scores are targets and have no gradient.
    """
    targets_KC = torch.sigmoid(logits_BC.detach().float())[splicing.members_MG.flatten()]
    losses_KC = F.binary_cross_entropy_with_logits(cell_logits_KC.float(), targets_KC, reduction="none")
    return torch.where(splicing.is_kept_MG.flatten()[:, None], losses_KC, 0).mean()


def _resize(maps_BDHW: Tensor, height: int, width: int) -> Tensor:
    if maps_BDHW.shape[2:] == (height, width):
        return maps_BDHW
    return F.interpolate(maps_BDHW, (height, width), mode="bilinear", align_corners=True)
