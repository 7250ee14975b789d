"""Scenes: small pictures of coloured handwritten digits, generated on first use. No download.

The digits are those bundled with scikit-learn: 1,797 real handwritten digits of 8 x 8 cells from the test set of
"Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0). A scene shows one to five categories, digit x ink ("red seven"), scaled,
turned and overlapping, over a textured background littered with pieces of other digits in the same and in other inks.
What kind of scene it is decides which categories are likely, so that categories occur together as they do in
photographs. Train and test scenes share no digit; the digits are split by position, because neighbours in the
bundled order tend to be of one hand. The iconic split (one digit an image, from the training digits) is for
pre-training the backbone, the part that ImageNet plays for photographs.

It goes the way that COCO goes: JPEG files and an annotation JSON on disk, read by the same reader, at an eighth
of the size (64 pixels for 512, of which the network sees 56 for 448).

Evidence for: whether a method runs, learns, resumes and repeats; whether it uses the labels it is given (the known
ratio matters a lot here). No evidence for: which method is better on photographs. The categories are twenty, of similar
frequency and labelled without error, objects differ little in size and have no context but each other. Nothing was
tuned to make methods come out in any order.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlrpl_bench import Dataset, Preset, Split, UserError, build_folder_once, register_dataset, seed_of
from mlrpl_bench.data import coco, word_vectors

SPLITS = ("train", "test", "iconic")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = ("red", "blue")
CATEGORIES = tuple(f"{ink} {digit}" for ink in INKS for digit in DIGITS)
CELLS = 8  # a bundled digit's side

Canvas = NDArray[np.float32]  # H x W x 3, in [0, 1]


@dataclass(frozen=True)
class SceneRecipe:
    """Everything that decides what is drawn; its hash names the folder. Pairs are (lowest, highest), drawn evenly.

    Attributes:
        version: raised when the drawing code changes.
        images: of each split.
        train_digits: how many of the bundled digits, from the first, are drawn in train and iconic; test has the rest.
        canvas_px: side of a scene.
        iconic_px: side of an iconic picture, in which one object fills the frame.
        categories_share: of the scenes, the share with 1, 2, ... distinct categories.
        twin_share: of the categories in a scene, the share drawn with a second object.
        scene_types: number of kinds of scene.
        favourites: number of categories that a kind prefers.
        favour: how many times as likely a preferred category is.
        object_px: height of an object's 8 cells, of which a digit fills all and about 5 across.
        turn_deg: largest rotation, to either side.
        squeeze: width relative to height.
        overlap: an object is placed where at most this share of its or another's box is covered, if such a
            place turns up among `place_trials`.
        clutter: number of pieces of digits behind the objects of a scene.
        iconic_clutter: the same for an iconic picture.
        clutter_cells: side of the square cut from a digit for a piece.
        clutter_same_ink: the share of pieces in an ink that counts.
        hue_deg: hue of each ink, on the colour circle.
        other_hue_deg: hues of clutter in other inks.
        hue_spread_deg: largest deviation from a hue, to either side.
        saturation: in [0, 1].
        shade: brightness of the ink, in [0, 1].
        opacity: share of the ink in a pixel, in [0, 1].
        ground: brightness of the background, in units of full brightness.
        tint: its colour cast, in units of full brightness.
        texture: its contrast, in units of full brightness.
        noise: standard deviation per pixel, in units of full brightness.
        jpeg_quality: Pillow's; colour is not subsampled, since it carries labels.
    """

    version: int = 2
    images: tuple[tuple[str, int], ...] = (("train", 1500), ("test", 800), ("iconic", 6000))
    train_digits: int = 1200
    canvas_px: int = 64
    iconic_px: int = 32
    categories_share: tuple[float, ...] = (0.15, 0.29, 0.28, 0.18, 0.10)
    twin_share: float = 0.1
    scene_types: int = 5
    favourites: int = 8
    favour: float = 12.0
    object_px: tuple[float, float] = (17.0, 30.0)
    turn_deg: float = 14.0
    squeeze: tuple[float, float] = (0.8, 1.15)
    overlap: float = 0.2
    place_trials: int = 24
    clutter: tuple[int, int] = (4, 9)
    iconic_clutter: tuple[int, int] = (0, 2)
    clutter_cells: int = 4
    clutter_same_ink: float = 0.5
    hue_deg: tuple[float, float] = (0.0, 220.0)
    other_hue_deg: tuple[float, ...] = (45.0, 120.0, 290.0)
    hue_spread_deg: float = 14.0
    saturation: tuple[float, float] = (0.6, 0.95)
    shade: tuple[float, float] = (0.45, 0.95)
    opacity: tuple[float, float] = (0.75, 1.0)
    ground: tuple[float, float] = (0.35, 0.85)
    tint: float = 0.07
    texture: float = 0.14
    noise: float = 0.04
    jpeg_quality: int = 90

    def hash(self) -> str:
        """Identifies the recipe: eight hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


class Thing(NamedTuple):
    """One object in a scene: its category and the pixels (H x W, bool) where it is seen."""

    category: int
    seen_HW: NDArray[np.bool_]


@register_dataset(
    "scenes",
    preset=Preset(
        image_size=56,
        backbone="small",
        epochs=10,
        batch=32,
        lr_multiplier=80,
        ratios=(0.1, 0.5, 0.9),
        # A mirrored digit is another sign, and a crop of half the side shows a third of what is in a scene.
        crop_sides=(1.0, 0.875, 0.75),
        flip=False,
        pretraining_split="iconic",
        pretraining_image_size=28,
    ),
)
class Scenes(Dataset):
    """The generated dataset; kept in the cache, one folder per recipe."""

    needs_root = False

    def __init__(self, options: Dataset.Options | None = None, recipe: SceneRecipe | None = None) -> None:
        super().__init__(options)
        self.recipe = recipe or SceneRecipe()

    def load(self, root: Path, split: str) -> Split:
        """A split (``"train"``, ``"test"`` or ``"iconic"``); the first call generates all three under `root`."""
        if split not in SPLITS:
            raise UserError(f"scenes has no split {split!r}; there are: {', '.join(SPLITS)}")
        folder = build_folder_once(
            root / f"scenes-{self.recipe.hash()}", lambda temporary: generate(temporary, self.recipe, self.report)
        )
        complete = coco.read(_annotation_file(folder, split), folder / split)
        return replace(complete, word_vectors_CE=word_vectors.hashed_vectors(complete.categories))


def generate(folder: Path, recipe: SceneRecipe, report: Callable[[str, int, int], None] = lambda *_: None) -> None:
    """Draw all splits into a folder: ``<split>/*.jpg`` and ``annotations/instances_<split>.json``."""
    categories = [
        {"id": place + 1, "name": name, "supercategory": name.split()[1]} for place, name in enumerate(CATEGORIES)
    ]
    jobs = [(split, index) for split, number in recipe.images for index in range(number)]
    images: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    annotations: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        (folder / split).mkdir()
    for done, (split, index) in enumerate(jobs, start=1):
        canvas_HW3, things = draw(split, index, recipe)
        image = {
            "id": index + 1,
            "file_name": f"{index + 1:012d}.jpg",
            "width": canvas_HW3.shape[1],
            "height": canvas_HW3.shape[0],
        }
        (folder / split / str(image["file_name"])).write_bytes(_jpeg(canvas_HW3, recipe.jpeg_quality))
        images[split].append(image)
        annotations[split] += [
            _annotation(len(annotations[split]) + place + 1, index + 1, thing) for place, thing in enumerate(things)
        ]
        report("drawing scenes (once)", done, len(jobs))
    for split in SPLITS:
        coco.write(_annotation_file(folder, split), images[split], annotations[split], categories)


def draw(split: str, index: int, recipe: SceneRecipe) -> tuple[NDArray[np.uint8], list[Thing]]:
    """One picture (H x W x 3) and what is in it; depends on nothing but the arguments."""
    rng = np.random.default_rng(seed_of("scenes", split, index))
    # What is in a scene is drawn before how it looks, so that no rounding in the drawing can change a label.
    if split == "iconic":
        recipe = replace(recipe, canvas_px=recipe.iconic_px)
        categories, (fewest, most) = _iconic_category(rng), recipe.iconic_clutter
    else:
        categories, (fewest, most) = _scene_categories(rng, recipe), recipe.clutter
    canvas_HW3 = _background(rng, recipe)
    for _ in range(rng.integers(fewest, most, endpoint=True)):
        stroke, _ = _place(_piece(rng, split, recipe), rng, recipe, [])
        _paint(canvas_HW3, stroke, _clutter_ink(rng, recipe), rng, recipe)

    boxes: list[Box] = []
    things: list[Thing] = []
    for category in categories:
        ink, digit = divmod(category, len(DIGITS))
        stroke, box = _place(_digit(rng, split, digit, recipe), rng, recipe, boxes)
        _paint(canvas_HW3, stroke, _ink(rng, recipe.hue_deg[ink], recipe), rng, recipe)
        inked_HW = _inked(stroke, recipe)
        things = [Thing(thing.category, thing.seen_HW & ~inked_HW) for thing in things]
        things.append(Thing(category, inked_HW))
        boxes.append(box)
    canvas_HW3 += recipe.noise * rng.standard_normal(canvas_HW3.shape, dtype=np.float32)
    return (canvas_HW3.clip(0, 1) * 255).round().astype(np.uint8), things


def digit_pool(split: str, recipe: SceneRecipe) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits that a split may show: M x 8 x 8 in [0, 1], and which digit each is."""
    pixels_M88, digit_M = _bundled_digits()
    part = slice(recipe.train_digits, None) if split == "test" else slice(recipe.train_digits)
    return pixels_M88[part], digit_M[part]


@cache
def category_odds(recipe: SceneRecipe) -> NDArray[np.float64]:
    """How likely each kind of scene picks each category: scene types x C, rows sum to 1.

    The kinds take their favourites in turn from one shuffled order, so that each category has its part.
    """
    order_C = np.random.default_rng(seed_of("scenes", "types")).permutation(len(CATEGORIES))
    odds_TC = np.ones((recipe.scene_types, len(CATEGORIES)))
    step = len(CATEGORIES) / recipe.scene_types
    for kind, odds_C in enumerate(odds_TC):
        odds_C[order_C[(round(kind * step) + np.arange(recipe.favourites)) % len(CATEGORIES)]] = recipe.favour
    return odds_TC / odds_TC.sum(axis=1, keepdims=True)


# What is in a picture


def _iconic_category(rng: np.random.Generator) -> list[int]:
    return [int(rng.integers(len(CATEGORIES)))]


def _scene_categories(rng: np.random.Generator, recipe: SceneRecipe) -> list[int]:
    """The category of each object: distinct ones, then a second object of some of them."""
    odds_C = category_odds(recipe)[rng.integers(recipe.scene_types)]
    distinct = 1 + int(rng.choice(len(recipe.categories_share), p=recipe.categories_share))
    chosen = rng.choice(len(CATEGORIES), size=distinct, replace=False, p=odds_C)
    twins = chosen[rng.random(distinct) < recipe.twin_share]
    return [int(category) for category in rng.permutation(np.concatenate([chosen, twins]))]


def _digit(rng: np.random.Generator, split: str, digit: int, recipe: SceneRecipe) -> NDArray[np.float32]:
    """One of the split's handwritten digits of a kind: 8 x 8 in [0, 1]."""
    pixels_M88 = _pool_by_digit(split, recipe)[digit]
    return pixels_M88[rng.integers(len(pixels_M88))]


def _piece(rng: np.random.Generator, split: str, recipe: SceneRecipe) -> NDArray[np.float32]:
    """A square cut from a digit: 8 x 8 with nothing around it. Not from a one: a piece of a one is a one."""
    row, column = rng.integers(0, CELLS - recipe.clutter_cells, 2, endpoint=True)
    part = slice(row, row + recipe.clutter_cells), slice(column, column + recipe.clutter_cells)
    piece_88 = np.zeros((CELLS, CELLS), dtype=np.float32)
    digit = (0, 2, 3, 4, 5, 6, 7, 8, 9)[rng.integers(9)]
    piece_88[part] = _digit(rng, split, digit, recipe)[part]
    return piece_88


@cache
def _pool_by_digit(split: str, recipe: SceneRecipe) -> list[NDArray[np.float32]]:
    pixels_M88, digit_M = digit_pool(split, recipe)
    return [pixels_M88[digit_M == digit] for digit in range(len(DIGITS))]


# Where it is


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float


def _place(
    pixels_88: NDArray[np.float32], rng: np.random.Generator, recipe: SceneRecipe, others: list[Box]
) -> tuple[Stroke, Box]:
    """Give a digit a size, a turn and a place that leaves the others visible."""
    height = rng.uniform(*recipe.object_px)
    width = height * rng.uniform(*recipe.squeeze)
    box, least = None, math.inf
    for _ in range(recipe.place_trials):
        left, top = rng.random() * (recipe.canvas_px - width), rng.random() * (recipe.canvas_px - height)
        trial = Box(left, top, left + width, top + height)
        worst = max((_overlap(trial, other) for other in others), default=0.0)
        if worst < least:
            box, least = trial, worst
        if least <= recipe.overlap:
            break
    assert box is not None, "a recipe needs at least one place trial"
    turn = math.radians(rng.uniform(-recipe.turn_deg, recipe.turn_deg))
    return _render(pixels_88, box, turn, recipe.canvas_px), box


def _overlap(one: Box, other: Box) -> float:
    """The share of the smaller of two boxes that the other covers."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    smaller = min((box.right - box.left) * (box.bottom - box.top) for box in (one, other))
    return max(width, 0.0) * max(height, 0.0) / smaller


# How it looks


class Stroke(NamedTuple):
    """Where ink goes: a window of the canvas (its rows, its columns) and the share of ink in each of its pixels."""

    window: tuple[slice, slice]
    cover_hw: NDArray[np.float32]


def _render(pixels_88: NDArray[np.float32], box: Box, turn: float, canvas_px: int) -> Stroke:
    """A digit enlarged smoothly to fill a box, then turned about its centre (in radians); its edges are soft.

    The arithmetic is on plain numbers, because this runs for every object and NumPy is slow on single ones.
    """
    margin = 2  # cells that cubic interpolation needs around a digit
    padded = np.zeros((CELLS + 2 * margin, CELLS + 2 * margin), dtype=np.float32)
    padded[margin:-margin, margin:-margin] = pixels_88

    width, height = box.right - box.left, box.bottom - box.top
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    reach = math.hypot(width, height) / 2  # however it is turned, all of it lies within the window
    left, top = max(math.floor(x - reach), 0), max(math.floor(y - reach), 0)
    right, bottom = min(math.ceil(x + reach), canvas_px), min(math.ceil(y + reach), canvas_px)
    # From a pixel of the window back to the cell that it shows.
    a, b = CELLS / width * math.cos(turn), CELLS / width * math.sin(turn)
    d, e = -CELLS / height * math.sin(turn), CELLS / height * math.cos(turn)
    middle = CELLS / 2 + margin
    c = middle - a * (x - left) - b * (y - top)
    f = middle - d * (x - left) - e * (y - top)
    enlarged = Image.fromarray(padded).transform(
        (right - left, bottom - top), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
    )
    lightest, full = 0.25, 0.65  # of the scanned grey: where a stroke's edge begins and ends
    cover_hw = ((np.asarray(enlarged) - lightest) / (full - lightest)).clip(0, 1)
    return Stroke((slice(top, bottom), slice(left, right)), cover_hw)


def _inked(stroke: Stroke, recipe: SceneRecipe) -> NDArray[np.bool_]:
    """The pixels (H x W) that are mostly ink."""
    inked_HW = np.zeros((recipe.canvas_px, recipe.canvas_px), dtype=bool)
    inked_HW[stroke.window] = stroke.cover_hw >= 0.5
    return inked_HW


def _paint(
    canvas_HW3: Canvas,
    stroke: Stroke,
    colour_3: NDArray[np.float32],
    rng: np.random.Generator,
    recipe: SceneRecipe,
) -> None:
    """Put ink on the canvas, in place."""
    ink_hw1 = stroke.cover_hw[..., None] * np.float32(rng.uniform(*recipe.opacity))
    window_hw3 = canvas_HW3[stroke.window]
    window_hw3 += ink_hw1 * (colour_3 - window_hw3)


def _ink(rng: np.random.Generator, hue_deg: float, recipe: SceneRecipe) -> NDArray[np.float32]:
    """A colour (red, green, blue in [0, 1]) near a hue, of any saturation and shade."""
    hue = (hue_deg + rng.uniform(-recipe.hue_spread_deg, recipe.hue_spread_deg)) % 360 / 360
    colour = colorsys.hsv_to_rgb(hue, rng.uniform(*recipe.saturation), rng.uniform(*recipe.shade))
    return np.array(colour, dtype=np.float32)


def _clutter_ink(rng: np.random.Generator, recipe: SceneRecipe) -> NDArray[np.float32]:
    hues = recipe.hue_deg if rng.random() < recipe.clutter_same_ink else recipe.other_hue_deg
    return _ink(rng, hues[rng.integers(len(hues))], recipe)


def _background(rng: np.random.Generator, recipe: SceneRecipe) -> Canvas:
    """Blotches of two sizes and stripes, over a tinted grey."""
    side = recipe.canvas_px
    colour_3 = rng.uniform(*recipe.ground) + rng.uniform(-recipe.tint, recipe.tint, 3)
    broad_3HW = _enlarge(4, side) @ rng.uniform(-1, 1, (3, 4, 4)) @ _enlarge(4, side).T
    fine_HW = _enlarge(16, side) @ rng.uniform(-1, 1, (16, 16)) @ _enlarge(16, side).T
    period_px, turn, phase = rng.uniform(4, 16), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    x_1W = np.arange(side)[None, :]
    stripes_HW = np.sin(2 * np.pi / period_px * (x_1W * np.cos(turn) + x_1W.T * np.sin(turn)) + phase)
    broad, fine, stripes = recipe.texture * rng.dirichlet([2, 2, 2])
    texture_3HW = broad * broad_3HW + fine * fine_HW + stripes * stripes_HW
    return np.ascontiguousarray((colour_3[:, None, None] + texture_3HW).transpose(1, 2, 0), dtype=np.float32)


@lru_cache
def _enlarge(cells: int, side: int) -> NDArray[np.float32]:
    """The side x cells matrix that interpolates smoothly from cells to pixels."""
    identity = Image.fromarray(np.eye(cells, dtype=np.float32))
    return np.asarray(identity.resize((cells, side), Image.Resampling.BICUBIC))


@cache
def _bundled_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bundled = load_digits()
    return (bundled.images / 16).astype(np.float32), bundled.target


# What goes to disk


def _annotation_file(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def _annotation(identity: int, image_id: int, thing: Thing) -> dict[str, Any]:
    """COCO's entry for an object: the box around what is seen of it, and how many pixels that is."""
    rows, columns = np.nonzero(thing.seen_HW)
    left, top = int(columns.min()), int(rows.min())
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": thing.category + 1,
        "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        "area": len(rows),
        "iscrowd": 0,
    }


def _jpeg(canvas_HW3: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas_HW3).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
