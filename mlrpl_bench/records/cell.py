"""This module describes a cell: one training run, given by dataset, method, known ratio, seed and setting.

A cell holds everything that could change its numbers, and its key is the hash of all that. So a record found under the
key *is* the answer, and a changed setting, hyper-parameter or method file makes another cell.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import types
import typing
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.images.transforms import (
    DEVIATION_3,
    INTERPOLATION,
    INTERPOLATIONS,
    MEAN_3,
    ImageTransform,
    PixelFormat,
)
from mlrpl_bench.models.hyperparameters import EMA, LARGEST_EMA, RATE, SMALLEST_EMA
from mlrpl_bench.models.method import AVERAGED, RAW, Method, Recipe
from mlrpl_bench.utils.errors import UserError


@dataclass(frozen=True)
class Setting:
    """A setting holds what cells must have in common to stand in one table.

    Attributes:
        protocol_version: the version of the protocol, see `protocol.VERSION`.
        dataset: the name of the dataset.
        fingerprint: a hash of ids, categories and labels of the training and of the evaluation split.
        evaluate_on: the split that is scored, such as ``test``.
        mask_scheme: how the known labels are chosen, see `protocol.known_mask`.
        backbone: the name of the backbone.
        weights: what its weights are: a file's hash, timm's tag, or the recipe that made them.
        word_vectors: a hash of the category word vectors.
        image_size: the side of the network's input, in pixels, see `transforms.ImageTransform`.
        crop_sides: the sides of the training crops, as fractions of the enlarged side, see `transforms.ImageTransform`.
        flip: whether training images are flipped, see `transforms.ImageTransform`.
        transform: the implementation of the image transform; implementations differ in bits.
        bad_images: what happens to an image that cannot be decoded, such as ``error``.
        precision: the number format in which the network computes, such as ``32-true`` or ``bf16-mixed``.
        epochs: the training length, unless a method's recipe says otherwise.
        batch: the images per step, unless a method's recipe says otherwise.
        mean: the mean of the pixels that the backbone was trained with, by colour, see `transforms.PixelFormat`.
        deviation: the standard deviation of these pixels, by colour.
        interpolation: how images are resized for the backbone.
        trained_stages: how many of the backbone's stages are trained, the last ones; see `cutting`.
        folded: whether the frozen part's batch norms are computed by the convolutions before them.
        feature_width: the width D of features, in place of the backbone's own; see `backbones.Backbone`.
        attention_width: the width M in which words and positions meet, in place of the backbone's own.
        pool: whether the map is pooled, in place of the backbone's own.
    """

    protocol_version: int
    dataset: str
    fingerprint: str
    evaluate_on: str
    mask_scheme: str
    backbone: str
    weights: str
    word_vectors: str
    image_size: int
    crop_sides: tuple[float, ...]
    flip: bool
    transform: str
    bad_images: str
    precision: str
    epochs: int
    batch: int
    mean: tuple[float, ...] = MEAN_3
    deviation: tuple[float, ...] = DEVIATION_3
    interpolation: str = INTERPOLATION
    trained_stages: int = 1
    folded: bool = False
    feature_width: int | None = None
    attention_width: int | None = None
    pool: bool | None = None

    @property
    def pixels(self) -> PixelFormat:
        """Return the format of the pixels that the backbone is fed with."""
        return PixelFormat(self.mean, self.deviation, self.interpolation)

    def view(self) -> ImageTransform:
        """Return the transform that makes the network's input from an image."""
        return ImageTransform(self.image_size, self.crop_sides, self.flip, self.transform, self.pixels)

    def to_json(self) -> dict[str, Any]:
        """Return the setting as plain data.

        The usual values of later fields are left out, so that a key is what it was before them.
        """
        usual = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell describes one training run, before, while and after it runs.

    Attributes:
        setting: what the cell has in common with the others of its table.
        method: the name of the method.
        hyperparameters: the resolved hyper-parameters of the method, by name.
        changed: the names of the hyper-parameters, and of the recipe's `EMA`, that the user changed; they are part of
            the row's label.
        lr_factor: this row's own factor on the setting's learning rate, which `recipe` has; part of the row's label.
        row: what a table calls the row in place of the label that is made from these; no part of a record.
        recipe: the resolved recipe of the method.
        source_digest: a hash that identifies the method's file, see `registry.source_digest`.
        ratio: the known ratio in (0, 1].
        seed: the seed of training.
        mask_seed: the seed of the mask.
        mask_hash: a hash of the mask.
    """

    setting: Setting
    method: str
    hyperparameters: dict[str, Any]
    changed: tuple[str, ...]
    recipe: Recipe
    source_digest: str
    ratio: float
    seed: int
    mask_seed: int
    mask_hash: str
    lr_factor: float = 1.0
    row: str = ""

    @property
    def key(self) -> str:
        """Return the SHA-256 of the canonical JSON of everything that could change the numbers.

        Which values are defaults, and what the row is called, does not count; the learning rate is in the recipe.
        """
        content = {**asdict(self), "setting": self.setting.to_json(), "recipe": self.recipe.to_json()}
        for name in ("changed", "lr_factor", "row"):
            del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def label(self) -> str:
        """Return the row of the cell: the method, with what was changed, ``sarb[lr=3, prototypes=5]``."""
        return self.row or self.full_label

    @property
    def full_label(self) -> str:
        """Return the method with the rate and hyper-parameters that were changed, whatever a table calls the row."""
        changed = [f"{RATE}={self.lr_factor:g}"] if self.lr_factor != 1 else []
        changed += [f"{name}={self._value_of(name)}" for name in self.changed]
        return f"{self.method}[{', '.join(changed)}]" if changed else self.method

    def _value_of(self, name: str) -> Any:
        """Return the value of something that the user changed."""
        if name in self.hyperparameters:
            return self.hyperparameters[name]
        value = getattr(self.recipe, name)
        return f"{value:g}" if isinstance(value, float) else value

    @property
    def title(self) -> str:
        """Return the cell's name for people: ``sarb 10 % seed 0``."""
        return f"{self.label} {100 * self.ratio:g} % seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return the cell as plain data, which `from_json` reads back."""
        content = {**asdict(self), "setting": self.setting.to_json(), "recipe": self.recipe.to_json()}
        del content["row"]
        if self.lr_factor == 1:  # so that records are what they were before there was this field
            del content["lr_factor"]
        return json.loads(json.dumps(content))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Cell:
        """Return the cell that `to_json` wrote.

        Raises:
            UserError: a field is missing or unknown.
        """
        try:
            setting = {**content["setting"], "crop_sides": tuple(content["setting"]["crop_sides"])}
            setting |= {name: tuple(setting[name]) for name in ("mean", "deviation") if name in setting}
            values = {
                **content,
                "setting": Setting(**setting),
                "recipe": Recipe(**content["recipe"]),
                "changed": tuple(content["changed"]),
            }
            cell = cls(**values)
        except (KeyError, TypeError) as error:
            raise UserError(f"this is not a cell of this version: {error}") from error
        if cell.row:
            raise UserError("this is not a cell of this version: it has a row")
        for part in (cell, cell.setting, cell.recipe):
            _refuse_other_types(part)
        _refuse_impossible_pixels(cell.setting.pixels)
        if cell.lr_factor <= 0:
            raise UserError(f"this is not a cell of this version: lr_factor is {cell.lr_factor!r}")
        _refuse_impossible_average(cell.recipe)
        if lost := [name for name in cell.changed if name not in cell.hyperparameters and name != EMA]:
            raise UserError(f"this is not a cell of this version: no hyper-parameter {lost[0]!r}")
        return cell


def _refuse_other_types(part: Cell | Setting | Recipe) -> None:
    """Refuse values of other types than the fields state, as anybody may have written the file that was read.

    Tables and paths are made of these values.
    """
    for name, hint in _hints(type(part)).items():  # type: ignore[arg-type]  # mypy: a dataclass is no Hashable
        if not _fits(getattr(part, name), hint):
            raise UserError(f"this is not a cell of this version: {name} is {getattr(part, name)!r}")


def _refuse_impossible_pixels(pixels: PixelFormat) -> None:
    lengths = {len(pixels.mean_3), len(pixels.deviation_3)}
    if pixels.interpolation not in INTERPOLATIONS or lengths != {3} or min(pixels.deviation_3) <= 0:
        raise UserError(f"this is not a cell of this version: its pixels are {tuple(pixels)!r}")


def _refuse_impossible_average(recipe: Recipe) -> None:
    possible = recipe.ema is None or SMALLEST_EMA <= recipe.ema <= LARGEST_EMA
    if not possible or recipe.scored not in (RAW, AVERAGED):
        raise UserError(f"this is not a cell of this version: it averages {recipe.ema!r}, {recipe.scored!r}")


@functools.cache  # thousands of records are read for a table
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether plain data has the type that a field states; a whole number of a float's range fits a float."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(item, str | bool | int | float | None) for item in value.values())
    if hint in (int, float):  # NaN is not
        largest = sys.float_info.max
        return type(value) in {int, hint} and -largest <= value <= largest
    return type(value) is hint and (hint is not str or value.isprintable())


@dataclass(frozen=True, eq=False)
class Job:
    """A job holds a cell with the class and the hyper-parameters of its method.

    Attributes:
        cell: the cell that is to be trained.
        method_class: the class of the method.
        hyperparameters: an instance of the method's `Hyperparameters`, with the cell's values.
    """

    cell: Cell
    method_class: type[Method]
    hyperparameters: Any


@dataclass(frozen=True, eq=False)
class OtherWeights:
    """The weights whose scores are not the row's, where a recipe has averaged ones (`Recipe.scored`).

    Attributes:
        name: ``raw`` or ``averaged``.
        metrics: their test metrics of the last epoch.
        scores_NC: their final logits on the test images.
    """

    name: str
    metrics: dict[str, Any]
    scores_NC: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished cell holds everything that its record is made from.

    Attributes:
        cell: the cell that was trained.
        history: one row an epoch: loss terms, learning rate, the method's scalars, seconds, test metrics.
        steps: [S] values of every loss term at every step, by name.
        scores_NC: the final logits on the test images.
        train_scores_NC: the final logits on the training images, with the test transform.
        examples: a few test images' rows and scores, and where each category looks in them, if the method tells.
        metrics: the test metrics of the last epoch.
        best_epoch: the epoch, from 0, with the best test mAP, which is the one that the reference chooses.
        best_metrics: the test metrics of the best epoch.
        weights: the method's state, tensors and plain data; the frozen part is not in it.
        known_share: what the mask really left known of the present and of the absent labels.
        dropped_images: the training images in the short batch that every epoch drops.
        seconds: the time from the first step to the last evaluation.
        images_per_second: how many training images the steps took a second.
        peak_memory_bytes: the most memory that was in use, see `device.peak_memory`.
        cells_in_group: how many cells were trained together.
        threads: the numbers of threads with which torch worked, in order; several where the cell was left and gone on
            with in another process.
        other_weights: the scores of the weights that are not the row's, where the recipe has averaged ones.
    """

    cell: Cell
    history: list[dict[str, float]]
    steps: dict[str, NDArray[np.float32]]
    scores_NC: NDArray[np.float32]
    train_scores_NC: NDArray[np.float32]
    examples: dict[str, NDArray]
    metrics: dict[str, Any]
    best_epoch: int
    best_metrics: dict[str, Any]
    weights: dict[str, Any]
    known_share: dict[str, float]
    dropped_images: int
    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    cells_in_group: int
    threads: tuple[int, ...]
    other_weights: OtherWeights | None = None

    def test_scores(self) -> dict[str, NDArray[np.float32]]:
        """Return the final logits on the test images: ``scores``, and those of the other weights under their name."""
        other = self.other_weights
        return {"scores": self.scores_NC} | ({} if other is None else {other.name: other.scores_NC})
