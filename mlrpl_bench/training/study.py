"""A dataset under one setting: from names and options to cells, and to the workbench that trains them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.data.dataset import Preset, Split, held_out, refuse_unmeasurable
from mlrpl_bench.data.file_lists import missing_rows
from mlrpl_bench.data.images.cache import Prepared, PreparedRows, prepared_folder
from mlrpl_bench.data.images.decoding import bad_rows
from mlrpl_bench.data.images.transforms import BACKENDS, DEVIATION_3, INTERPOLATION, MEAN_3, ImageTransform
from mlrpl_bench.data.masks import FROM_FILE, Masks
from mlrpl_bench.data.word_vectors import hashed_vectors, prepared, vectors_hash
from mlrpl_bench.models import backbones, pretraining
from mlrpl_bench.models.hyperparameters import build as build_options
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry
from mlrpl_bench.records.cell import Cell, Setting
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import cache_folder, sha256_of_file
from mlrpl_bench.utils.processes import usable_cores

if TYPE_CHECKING:
    from mlrpl_bench.records.cell import Job
    from mlrpl_bench.training.workbench import Workbench

PRECISIONS = ("32-true", "bf16-mixed")
EVALUATE_ON = ("test", "val")
ON_BAD_IMAGE = ("error", "skip")


class Study:
    """Loads a dataset, knows the setting, makes cells, and builds the workbench when something is to be trained.

    Args:
        report: told about long preparations as (what, done, total).

    Attributes:
        left_out: of the ``training`` and the ``evaluation`` images those that a run goes on without, as (id, reason);
            none unless `Options.on_bad_image` is ``skip``.

    Raises:
        UserError: options that do not exist, data that is missing or damaged.
    """

    left_out: dict[str, list[tuple[int | str, str]]]

    def __init__(
        self, entry: DatasetEntry, options: Options, report: Callable[[str, int, int], None] = lambda *_: None
    ) -> None:
        self.entry, self.options, self.report = entry, options, report
        _check(options)
        chosen = ("epochs", "batch", "image_size", "backbone")
        self.preset = _with(entry.preset, **{name: getattr(options, name) for name in chosen})
        self.dataset = entry.cls(build_options(entry.cls.Options, dict(options.data), entry.name, "option"))
        self.dataset.report = report
        if options.data_root is None and self.dataset.needs_root:
            raise UserError(f"where is {entry.name}? Name its folder with --data-root PATH or MLRPL_DATA")
        self.root = (options.data_root if self.dataset.needs_root else None) or cache_folder()
        self.train, self.test = self._splits()
        self._mask_hashes: dict[tuple[float, int], str] = {}
        self.setting = self._setting()

    def job(self, entry: MethodEntry, ratio: float, seed: int, mask_seed: int, changed: Mapping[str, Any]) -> Job:
        """The cell of a method at a known ratio, ready to be trained."""
        from mlrpl_bench.records.cell import Job

        hyperparameters, usual = entry.hyperparameters(dict(changed)), entry.hyperparameters()
        cell = Cell(
            setting=self.setting,
            method=entry.name,
            hyperparameters=dataclasses.asdict(hyperparameters),
            changed=tuple(sorted(name for name in changed if getattr(hyperparameters, name) != getattr(usual, name))),
            recipe=entry.cls.recipe.resolve(self.preset),
            source_digest=entry.source_digest(),
            ratio=ratio,
            seed=seed,
            mask_seed=mask_seed,
            mask_hash=self._mask_hash(ratio, mask_seed),
        )
        return Job(cell, entry.cls, hyperparameters)

    def _mask_hash(self, ratio: float, mask_seed: int) -> str:
        """Drawn once for all methods: a thousand cells share some forty masks."""
        if (ratio, mask_seed) not in self._mask_hashes:
            self._mask_hashes[ratio, mask_seed] = protocol.mask_hash(self.masks(ratio, mask_seed))
        return self._mask_hashes[ratio, mask_seed]

    @cached_property
    def workbench(self) -> Workbench:
        """Readers, device and backbone; made once, on first use."""
        from mlrpl_bench.training.workbench import Workbench

        backbone = backbones.build(self.preset.backbone, self._weights_to_load())
        fabric = _fabric(self.options)
        workers = self.options.workers
        if workers is None:  # on a CPU the loader would only take cores from the training
            workers = 0 if fabric.device.type == "cpu" else min(16, len(usable_cores()))
        return Workbench(
            self.train,
            self.test,
            backbone,
            self.view(),
            fabric,
            workers,
            self.masks,
            self._prepared(),
            self.options.compile,
        )

    def deviations(self) -> list[str]:
        """How this setting differs from the papers' (ResNet-101, 448 pixels, 20 epochs, GloVe vectors)."""
        s = self.setting
        papers: list[tuple[str, object, object]] = [
            ("backbone", s.backbone, backbones.RESNET101),
            ("weights", s.weights.split(":")[0], "timm"),
            ("image size", s.image_size, 448),
            ("crop sides", s.crop_sides, Preset(448, "").crop_sides),
            ("mirroring", s.flip, True),
            ("mean of the pixels", s.mean, MEAN_3),
            ("deviation of the pixels", s.deviation, DEVIATION_3),
            ("resizing", s.interpolation, INTERPOLATION),
            ("epochs", s.epochs, 20),
            ("batch", s.batch, 16),
            ("learning rate times", self.preset.lr_multiplier, 1.0),
            ("precision", s.precision, "32-true"),
            ("mask scheme", s.mask_scheme, "hcp"),
            ("image backend", s.transform, "reference"),
        ]
        lines = [f"{what} {here} (papers: {there})" for what, here, there in papers if here != there]
        lines += [f"dataset option {option}" for option in self._data_options()]
        lines += self._unexpected_counts()
        if self._fallback_words:
            lines.append("no word vectors given: fixed pseudo-random ones, a name's words averaged (papers: GloVe)")
        lines += [f"{len(bad)} {of} images left out, missing or damaged" for of, bad in self.left_out.items() if bad]
        return lines

    def _splits(self) -> tuple[Split, Split]:
        """What is trained on and what is evaluated on.

        Of the dataset's own splits (`sources`) these are `rows`; `masks` are drawn before damaged images are left out.
        """
        whole = self._split("train")
        if self.options.evaluate_on == "test":
            evaluated = self._split("test")
            train_rows, test_rows = np.arange(len(whole)), np.arange(len(evaluated))
        elif "val" in self.dataset.splits(self.root):
            evaluated = self._split("val")
            train_rows, test_rows = np.arange(len(whole)), np.arange(len(evaluated))
        else:
            evaluated, held_N = whole, held_out(len(whole))
            train_rows, test_rows = np.flatnonzero(~held_N), np.flatnonzero(held_N)
        if whole.categories != evaluated.categories:
            raise UserError(f"{self.entry.name}: train and test split have different categories, or in different order")
        self.masks = Masks(whole.rows(train_rows), self.options.mask_scheme, self.options.mask_file)
        self.left_out = {"training": [], "evaluation": []}
        if self.options.on_bad_image == "skip":
            kept, kept_test = self._kept("training", whole, train_rows), self._kept("evaluation", evaluated, test_rows)
            self.masks = dataclasses.replace(self.masks, kept_rows=kept)
            train_rows, test_rows = train_rows[kept], test_rows[kept_test]
        else:
            self.refuse_missing("training", whole, train_rows)
            self.refuse_missing("evaluation", evaluated, test_rows)
        if not len(train_rows) or not len(test_rows):
            raise UserError(f"{self.entry.name}: no images left to train on, or none to evaluate on")
        self.sources = {"train": (whole, train_rows), "test": (evaluated, test_rows)}
        test = evaluated.rows(test_rows)
        refuse_unmeasurable(test, self.entry.name)
        return whole.rows(train_rows), test

    def _kept(self, of: str, split: Split, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which of some rows have an image that can be decoded; the others are `left_out`."""
        report = lambda done, total: self.report("looking for damaged images", done, total)  # noqa: E731
        paths = [split.image_paths[row] for row in rows]
        bad = bad_rows(paths, len(usable_cores()), report, remember=True)
        self.left_out[of] = [(split.ids[rows[place]], reason) for place, reason in bad]
        return np.setdiff1d(np.arange(len(rows)), [place for place, _ in bad])

    def refuse_missing(self, of: str, split: Split, rows: NDArray[np.intp]) -> None:
        """Before anything is trained; a damaged image is only found when it is read."""
        missing = missing_rows([split.image_paths[row] for row in rows])
        if missing:
            raise UserError(
                f"{self.entry.name}: {len(missing):,} of {len(rows):,} {of} images are missing, the first is "
                f"{split.image_paths[rows[missing[0]]]}; finish the download or unpack the archive again (data check "
                "lists all), or leave them out with --on-bad-image skip"
            )

    def _prepared(self) -> dict[str, PreparedRows] | None:
        """The images that `data prepare` made ready, where the view reads these."""
        view = self.view()
        if not view.is_prepared:
            return None
        return {
            name: PreparedRows(Prepared(prepared_folder(split, view), split, view.backend, view.enlarged), rows)
            for name, (split, rows) in self.sources.items()
        }

    def _split(self, name: str) -> Split:
        split = self.dataset.load(self.root, name)
        if split.word_vectors_CE is None:
            split = dataclasses.replace(split, word_vectors_CE=prepared(split.categories))
        if name == "train":  # whose word vectors the methods get
            self._fallback_words = split.word_vectors_CE is None
        if split.word_vectors_CE is None:
            split = dataclasses.replace(split, word_vectors_CE=hashed_vectors(split.categories))
        return split

    def _setting(self) -> Setting:
        assert self.train.word_vectors_CE is not None
        pixels = backbones.pixel_format(self.preset.backbone)
        return Setting(
            protocol_version=protocol.VERSION,
            dataset=self.entry.name,
            fingerprint="-".join([self.train.fingerprint()[:16], self.test.fingerprint()[:16], *self._data_options()]),
            evaluate_on=self.options.evaluate_on,
            mask_scheme=self.options.mask_scheme if self.options.mask_file is None else FROM_FILE,
            backbone=self.preset.backbone,
            weights=self._weights_identity(),
            word_vectors=("fallback:" if self._fallback_words else "") + vectors_hash(self.train.word_vectors_CE)[:16],
            image_size=self.preset.image_size,
            crop_sides=self.preset.crop_sides,
            flip=self.preset.flip,
            transform=self.options.image_backend,
            bad_images=self.options.on_bad_image,
            precision=self.options.precision + ("+compile" if self.options.compile else ""),
            epochs=self.preset.epochs,
            batch=self.preset.batch,
            mean=pixels.mean_3,
            deviation=pixels.deviation_3,
            interpolation=pixels.interpolation,
        )

    def _data_options(self) -> list[str]:
        """The dataset's options that are not the usual ones: they may change pictures under the same labels."""
        chosen, usual = dataclasses.asdict(self.dataset.options), dataclasses.asdict(self.entry.cls.Options())
        return [f"{name}={chosen[name]}" for name in chosen if chosen[name] != usual[name]]

    def _unexpected_counts(self) -> list[str]:
        expected = {split: count for split, count in self.dataset.expected_counts.items() if split in self.sources}
        if self.options.evaluate_on != "test":
            expected.pop("test", None)
        found = {name: len(split) for name, (split, _) in self.sources.items()}
        return [
            f"{found[name]:,} {name} images (official: {count:,})"
            for name, count in expected.items()
            if found[name] != count
        ]

    def view(self) -> ImageTransform:
        """How images become the network's input."""
        s = self.setting
        return ImageTransform(s.image_size, s.crop_sides, s.flip, s.transform, s.pixels)

    @cached_property
    def _pretraining(self) -> tuple[Split, pretraining.PretrainingRecipe] | None:
        """The split and recipe that make the weights here, or None where weights are loaded."""
        split, backbone = self.preset.pretraining_split, self.preset.backbone
        if self.options.weights is not None or split is None or backbone != backbones.SMALL:
            return None
        recipe = pretraining.PretrainingRecipe(image_size=self.preset.pretraining_image_size or self.preset.image_size)
        return self.dataset.load(self.root, split), recipe

    def _weights_identity(self) -> str:
        weights = self.options.weights
        if self._pretraining is not None:
            return pretraining.identity(*self._pretraining)
        if weights == "random" or (weights is None and self.preset.backbone == backbones.SMALL):
            return "random"  # the table's footnotes say so, see `deviations`
        if weights is None:
            return f"timm:{backbones.pretrained_tag(self.preset.backbone)}"
        if not Path(weights).is_file():
            raise UserError(f"--weights {weights}: there is no such file")
        return f"file:{sha256_of_file(Path(weights))[:16]}"

    def _weights_to_load(self) -> str | None:
        if self._pretraining is None:
            return self.options.weights
        report = lambda done, total: self.report("pre-training the backbone", done, total)  # noqa: E731
        return str(pretraining.weights_file(*self._pretraining, report))


def _with(preset: Preset, **changes: Any) -> Preset:
    return dataclasses.replace(preset, **{name: value for name, value in changes.items() if value is not None})


def _check(options: Options) -> None:
    for what, chosen, choices in (
        ("precision", options.precision, PRECISIONS),
        ("split to evaluate on", options.evaluate_on, EVALUATE_ON),
        ("mask scheme", options.mask_scheme, tuple(protocol.SCHEMES)),
        ("image backend", options.image_backend, tuple(BACKENDS)),
        ("way with bad images", options.on_bad_image, ON_BAD_IMAGE),
    ):
        if chosen not in choices:
            raise UserError(f"no {what} {chosen!r}; there are: {', '.join(choices)}")
    for option, number, least in (
        ("--epochs", options.epochs, 1),
        ("--batch", options.batch, 2),
        ("--image-size", options.image_size, 16),
        ("--workers", options.workers, 0),
    ):
        if number is not None and number < least:
            raise UserError(f"{option} {number} must be at least {least}")
    if options.data_root is not None and not options.data_root.is_dir():
        raise UserError(f"--data-root {options.data_root} is not a folder")
    _device(options.device)


def _device(name: str) -> tuple[str, int]:
    """``cpu`` or ``cuda``, and which one."""
    import torch

    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"no device {name!r}; there are: auto, cpu, cuda, cuda:1 ...")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise UserError(f"device {name} is not there; use --device cpu or auto")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    return kind, int(number or 0)


def _allow_deterministic_algorithms_only() -> None:
    """For the whole process; an operation that has no such algorithm raises, on a CPU too."""
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read once, when cuBLAS is first used
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def _fabric(options: Options) -> Any:
    from lightning_fabric import Fabric

    kind, number = _device(options.device)
    if options.deterministic:
        _allow_deterministic_algorithms_only()
    devices: Any = [number] if kind == "cuda" else 1
    return Fabric(accelerator=kind, devices=devices, precision=options.precision)  # type: ignore[arg-type]
