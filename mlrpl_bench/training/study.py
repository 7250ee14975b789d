"""This module turns names and options into cells of one setting, and into the workbench that trains them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlrpl_bench.data import masks, protocol
from mlrpl_bench.data.dataset import PAPERS, Split
from mlrpl_bench.data.images.transforms import DEVIATION_3, INTERPOLATION, MEAN_3, ImageTransform
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.data.word_vectors import vectors_hash
from mlrpl_bench.models import backbones
from mlrpl_bench.models.hyperparameters import make_instance, paths_of, recipe_changes
from mlrpl_bench.models.pretraining import BackboneWeights
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry
from mlrpl_bench.records.cell import Cell, Job, Setting
from mlrpl_bench.training import inputs
from mlrpl_bench.training.options import Options, apply_options, check_options, flags_of_setting, variant
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import cache_folder
from mlrpl_bench.utils.processes import usable_cores
from mlrpl_bench.utils.progress import Report, silent

if TYPE_CHECKING:
    from mlrpl_bench.training.workbench import Workbench

WIDTHS = {
    "feature_width": "width of category features",
    "attention_width": "width of attention",
    "pool": "averaging of 2 x 2 positions",
}
"""These are the notes' names of a backbone's widths."""

SHORT = 8
"""Names of files have this many characters of a digest."""


def differences_from_papers(s: Setting, lr_multiplier: float | None) -> list[str]:
    """List how a setting differs from the papers' by what is written in it alone.

    Args:
        lr_multiplier: the factor on every method's learning rate, which no setting holds; None where it is not known.
    """
    papers = PAPERS
    rate = [("learning rate times", lr_multiplier, papers.lr_multiplier)] if lr_multiplier is not None else []
    compared: list[tuple[str, object, object]] = [
        ("backbone", s.backbone, papers.backbone),
        ("weights", s.weights.split(":")[0], "timm"),
        ("image size", s.image_size, papers.image_size),
        ("crop sides", s.crop_sides, papers.crop_sides),
        ("mirroring", s.flip, papers.flip),
        ("mean of the pixels", s.mean, MEAN_3),
        ("deviation of the pixels", s.deviation, DEVIATION_3),
        ("resizing", s.interpolation, INTERPOLATION),
        ("epochs", s.epochs, papers.epochs),
        ("batch", s.batch, papers.batch),
        *rate,
        ("precision", s.precision, "32-true"),
        ("mask scheme", s.mask_scheme, protocol.PAPERS_SCHEME),
        ("image backend", s.transform, "reference"),
    ]
    return [f"{what} {here} (papers: {there})" for what, here, there in compared if here != there]


class Study:
    """A study loads a dataset, knows the setting, makes cells, and builds the workbench when a cell is to be trained.

    Args:
        report: told about long preparations as (what, done, total).

    Attributes:
        preset: the dataset's preset, with what the user changed.
        inputs: the images and labels that were read, and the masks.
        weights: what the backbone begins with.
        setting: what all cells of the study share.

    Raises:
        UserError: options that do not exist, data that is missing or damaged.
    """

    reads_files = True
    """Whether the images are files, which must be there."""

    def __init__(self, entry: DatasetEntry, options: Options, report: Report = silent) -> None:
        check_options(options)
        self.entry, self.options, self.report = entry, options, report
        self.preset = apply_options(options, entry.preset_called(options.preset))
        self.dataset = entry.cls(make_instance(entry.cls.Options, dict(options.data), entry.name, "option"))
        self.dataset.report = report
        if options.data_root is None and self.dataset.needs_root:
            raise UserError(f"where is {entry.name}? Name its folder with --data-root PATH or MLRPL_DATA")
        self.root = (options.data_root if self.dataset.needs_root else None) or cache_folder()
        self.inputs = inputs.read(self.dataset, entry.name, self.root, options, report, self.reads_files)
        self.weights = BackboneWeights.chosen(self.dataset, self.root, self.preset, options.weights)
        self._mask_hashes: dict[tuple[float, int], str] = {}
        self.setting = self._setting()

    @property
    def train(self) -> Split:
        """Return the training split, with complete labels."""
        return self.inputs.train

    @property
    def test(self) -> Split:
        """Return the split that is evaluated on."""
        return self.inputs.test

    @property
    def flags(self) -> dict[str, str]:
        """Return the command-line option that decides a field of the setting alone, by the field's name."""
        return flags_of_setting()

    @property
    def masks(self) -> masks.Masks:
        """Return which training labels are known, for a ratio and a mask seed."""
        return self.inputs.masks

    @property
    def skipped_images(self) -> dict[str, list[tuple[int | str, str]]]:
        """Return the ``training`` and the ``evaluation`` images that a run goes on without, as (id, reason)."""
        return self.inputs.skipped_images

    def job(
        self, entry: MethodEntry, ratio: float, seed: int, mask_seed: int, changed: Mapping[str, Any], row: str = ""
    ) -> Job:
        """Make the cell of a method at a known ratio, ready to be trained.

        Args:
            changed: hyper-parameters, and what `hyperparameters.OF_THE_RECIPE` names of the recipe.
            row: what tables call its row, where not by what was changed.
        """
        of_recipe, changed = recipe_changes(changed, entry.name)
        hyperparameters, usual = entry.hyperparameters(dict(changed)), entry.hyperparameters()
        recipe = dataclasses.replace(entry.cls.recipe, **of_recipe.fields).resolve(self.preset, of_recipe.lr_factor)
        inputs.refuse_batch(recipe.batch or self.preset.batch, self.inputs, entry.name)
        cell = Cell(
            setting=self.setting,
            method=entry.name,
            hyperparameters=dataclasses.asdict(hyperparameters),
            changed=tuple(
                sorted(
                    [name for name in changed if getattr(hyperparameters, name) != getattr(usual, name)]
                    + [name for name, value in of_recipe.fields.items() if value != getattr(entry.cls.recipe, name)]
                )
            ),
            recipe=recipe,
            source_digest=entry.source_digest(),
            ratio=ratio,
            seed=seed,
            mask_seed=mask_seed,
            mask_hash=self._mask_hash(ratio, mask_seed),
            lr_factor=of_recipe.lr_factor,
            row=row,
        )
        return Job(cell, entry.cls, hyperparameters)

    def _mask_hash(self, ratio: float, mask_seed: int) -> str:
        """Return the hash of a mask, which is drawn once for all methods: a thousand cells share some forty masks."""
        if (ratio, mask_seed) not in self._mask_hashes:
            self._mask_hashes[ratio, mask_seed] = protocol.mask_hash(self.masks(ratio, mask_seed))
        return self._mask_hashes[ratio, mask_seed]

    @cached_property
    def workbench(self) -> Workbench:
        """Return the readers, device and backbone; they are made once, on first use."""
        from mlrpl_bench.training.parts.device import make_fabric
        from mlrpl_bench.training.workbench import Workbench

        told = lambda done, total: self.report("pre-training the backbone", done, total)  # noqa: E731
        s = self.setting
        backbone = backbones.build(
            s.backbone,
            self.weights.to_load(told),
            trained_stages=s.trained_stages,
            folded=s.folded,
            feature_width=s.feature_width,
            attention_width=s.attention_width,
            pool=s.pool,
        )
        fabric = make_fabric(self.options.device, self.options.precision, self.options.deterministic)
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
            inputs.prepared_rows(self.inputs, self.view()),
            self.options.compile,
        )

    def deviations(self) -> list[str]:
        """Say how this setting differs from the papers' (ResNet-101, 448 pixels, 20 epochs, GloVe vectors)."""
        lines = differences_from_papers(self.setting, self.preset.lr_multiplier)
        lines += self._of_backbone()
        lines += [f"dataset option {name}={value}" for name, value in inputs.chosen(self.dataset.options).items()]
        lines += inputs.unexpected_counts(self.inputs, self.dataset, self.options.evaluate_on)
        if not self.inputs.has_word_vectors:
            lines.append("no word vectors given: fixed pseudo-random ones, a name's words averaged (papers: GloVe)")
        lines += [
            f"{len(bad)} {of} images left out, missing or damaged" for of, bad in self.skipped_images.items() if bad
        ]
        return lines

    def _of_backbone(self) -> list[str]:
        """Say what is trained of a backbone, and the widths, where these are not what the notes' readers expect."""
        s, usual = self.setting, backbones.widths(self.setting.backbone)
        chosen = {"feature_width": s.feature_width, "attention_width": s.attention_width, "pool": s.pool}
        lines = [
            f"{WIDTHS[name]} {value} (usual with this backbone: {usual[name]})"
            for name, value in chosen.items()
            if value is not None
        ]
        if s.backbone not in (backbones.SMALL, backbones.RESNET101) or s.trained_stages != PAPERS.trained_stages:
            lines.append(f"trained of the backbone: {backbones.outline(s.backbone, s.trained_stages)}")
        return lines

    def variant(self, whichever_images: bool = False) -> str:
        """Return what names of files say of this setting, see `options.variant`.

        Args:
            whichever_images: leave out which images are evaluated.
        """
        options = dataclasses.replace(self.options, evaluate_on="test") if whichever_images else self.options
        evaluated = "val" if whichever_images else options.evaluate_on
        found = inputs.identified(self.dataset.options, self.inputs, evaluated)
        chosen, data = inputs.chosen(self.dataset.options), dict(options.data)
        labels = self.inputs.sources["train"][0].fingerprint() if chosen else ""
        for name, path_to in paths_of(type(self.dataset.options)).items():
            identity = labels if path_to == "labels" and name in chosen else found.get(name, "")
            if data.pop(name, None) is not None and identity:
                data[name] = identity[:SHORT]
        return variant(dataclasses.replace(options, data=data), self.entry.preset_called(options.preset))

    def _setting(self) -> Setting:
        assert self.train.word_vectors_CE is not None
        pixels = backbones.pixel_format(self.preset.backbone)
        if self.preset.trained_stages != PAPERS.trained_stages:
            backbones.outline(self.preset.backbone, self.preset.trained_stages)  # refuses more stages than there are
        of_images = self.preset.backbone, self.preset.image_size
        if needed := backbones.size_it_needs(*of_images):
            raise UserError(backbones.refusal_of_size(*of_images, needed))
        return Setting(
            protocol_version=protocol.VERSION,
            dataset=self.entry.name,
            fingerprint=self._fingerprint(self.train, self.test, self.options.evaluate_on),
            evaluate_on=self.options.evaluate_on,
            mask_scheme=self.options.mask_scheme if self.options.mask_file is None else FROM_FILE,
            backbone=self.preset.backbone,
            weights=self.weights.identity(),  # where they are random, the table's footnotes say so, see `deviations`
            word_vectors=("" if self.inputs.has_word_vectors else "fallback:")
            + vectors_hash(self.train.word_vectors_CE)[:16],
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
            trained_stages=self.preset.trained_stages,
            folded=backbones.is_folded(self.preset.backbone),
            **self._chosen_widths(),
        )

    @cached_property
    def validation(self) -> inputs.Inputs:
        """Return the images and labels that this setting has with the validation images in place of the test images.

        Raises:
            UserError: nothing can be measured on the validation images.
        """
        options = dataclasses.replace(self.options, evaluate_on="val", mask_file=None)
        return inputs.read(self.dataset, self.entry.name, self.root, options, self.report, reads_files=False)

    def validation_setting(self) -> Setting:
        """Return the same setting with validation images in place of test images, as for ``evaluate_on=val``."""
        fingerprint = self._fingerprint(self.validation.train, self.validation.test, "val")
        return dataclasses.replace(self.setting, evaluate_on="val", fingerprint=fingerprint)

    def _fingerprint(self, train: Split, evaluated: Split, evaluate_on: str) -> str:
        parts = [train.fingerprint()[:16], evaluated.fingerprint()[:16]]
        return "-".join([*parts, *self.data_options(evaluate_on)])

    def _chosen_widths(self) -> dict[str, Any]:
        """Return the widths that are not the backbone's own; None for the others."""
        usual = backbones.widths(self.preset.backbone)
        chosen = {name: getattr(self.preset, name) for name in usual}
        return {name: value if value != usual[name] else None for name, value in chosen.items()}

    def data_options(self, evaluate_on: str) -> list[str]:
        """Return the dataset's options that are not the usual ones, such as ``year=2017``.

        They may change pictures under the same labels. A path is not among them, see `inputs.identified`.
        """
        found = inputs.identified(self.dataset.options, self.inputs, evaluate_on)
        return [f"{name}={value}" for name, value in found.items()]

    def view(self) -> ImageTransform:
        """Return the transform that makes the network's input from images."""
        return self.setting.view()
