"""This module finds the weights that a backbone begins with, and pre-trains a small one, as ImageNet does for the large
ones.

A small backbone is pre-trained once on a dataset's own split of simple images. The weights are kept in the cache folder
under the hash of the recipe, the split and the code's version.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from mlrpl_bench.data.dataset import Dataset, Preset, Split
from mlrpl_bench.data.images.loader import Reader, normalise
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.models import backbones
from mlrpl_bench.utils.files import cache_folder, sha256_of_file, write_atomically
from mlrpl_bench.utils.progress import Count
from mlrpl_bench.utils.randomness import seed_of


@dataclass(frozen=True)
class PretrainingRecipe:
    """One-cycle Adam on the cross-entropy of globally averaged maps: one object an image, as in ImageNet.

    `version` is raised when this code or the small backbone changes, since the weights are kept by the recipe's hash.
    """

    version: int = 1
    epochs: int = 16
    batch: int = 64
    lr: float = 4e-3
    image_size: int = 28
    crop_sides: tuple[float, ...] = (1.0, 0.875)
    flip: bool = False


@dataclass(frozen=True, eq=False)
class BackboneWeights:
    """These are the weights that a backbone begins with: a file's, timm's, random ones, or those that are pre-trained
    here.

    Attributes:
        backbone: its name.
        given: a local file or ``random``; None for the usual ones.
        made_from: the split and the recipe that make them here; None where they are loaded.
    """

    backbone: str
    given: str | None = None
    made_from: tuple[Split, PretrainingRecipe] | None = None

    @classmethod
    def chosen(cls, dataset: Dataset, root: Path, preset: Preset, given: str | None) -> BackboneWeights:
        """Return the weights under a preset of a dataset, whose files are below `root`.

        Raises:
            UserError: the split for pre-training cannot be loaded.
        """
        if given is not None or preset.pretraining_split is None or preset.backbone != backbones.SMALL:
            return cls(preset.backbone, given)
        recipe = PretrainingRecipe(image_size=preset.pretraining_image_size or preset.image_size)
        return cls(preset.backbone, None, (dataset.load(root, preset.pretraining_split), recipe))

    def identity(self) -> str:
        """Return how a setting names these weights: ``random``, ``timm:NAME``, ``file:DIGEST`` or
        ``pretrained:DIGEST``.

        Raises:
            UserError: a file that is not there, is damaged or holds no weights.
        """
        if self.made_from is not None:
            return identity(*self.made_from)
        if self.given == "random" or (self.given is None and self.backbone == backbones.SMALL):
            return "random"
        if self.given is None:
            return f"timm:{backbones.pretrained_tag(self.backbone)}"
        backbones.read_weights(Path(self.given))  # refused now rather than when training begins
        return f"file:{sha256_of_file(Path(self.given))[:16]}"

    def to_load(self, report: Count) -> str | None:
        """Return what `backbones.build` takes; weights that are made here are made now, unless they are in the cache.

        Args:
            report: called with (steps done, steps total).
        """
        return self.given if self.made_from is None else str(weights_file(*self.made_from, report))


def identity(split: Split, recipe: PretrainingRecipe) -> str:
    """Return a name for the weights that depends on what they are made from; their bytes differ between processors."""
    text = json.dumps([asdict(recipe), split.fingerprint(), backbones.SMALL], sort_keys=True)
    return "pretrained:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_file(split: Split, recipe: PretrainingRecipe, report: Count) -> Path:
    """Return the file with the pre-trained weights, after training them if they are not in the cache.

    Args:
        report: called with (steps done, steps total).
    """
    from safetensors.torch import save

    path = cache_folder() / "weights" / f"{backbones.SMALL}-{identity(split, recipe).split(':')[1]}.safetensors"
    if not path.is_file():
        write_atomically(path, save(_train(split, recipe, report)))
    return path


def _train(split: Split, recipe: PretrainingRecipe, report: Count) -> dict[str, torch.Tensor]:
    present_NC = torch.from_numpy(split.labels_NC == PRESENT)
    assert (present_NC.sum(1) == 1).all(), "pre-training needs images of one category each"
    category_N = present_NC.int().argmax(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("pretraining"))
        backbone = backbones.build(backbones.SMALL, "random")
        classifier = nn.Linear(backbone.channels, len(split.categories))
    body = nn.ModuleList([backbone.frozen, backbone.trained])
    body.requires_grad_(True).train()
    reader = Reader(split.image_paths, ImageTransform(recipe.image_size, recipe.crop_sides, recipe.flip))
    steps_per_epoch = reader.steps_per_epoch(recipe.batch)
    optimizer = torch.optim.Adam([*body.parameters(), *classifier.parameters()], lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.epochs * steps_per_epoch)
    for epoch in range(recipe.epochs):
        for step, (pixels_B3HW, index_B, _) in enumerate(reader.training(0, epoch, recipe.batch)):
            maps_BDHW = backbone.trained(backbone.frozen(normalise(pixels_B3HW)))
            logits_BC = classifier(maps_BDHW.mean((2, 3)))
            loss = F.cross_entropy(logits_BC, category_N[index_B])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            report(epoch * steps_per_epoch + step + 1, recipe.epochs * steps_per_epoch)
    return {name: tensor.contiguous() for name, tensor in body.state_dict().items()}
