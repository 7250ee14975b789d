"""This module checks a dataset for ``data check``: which files are there, missing, damaged or unusual."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlrpl_bench.data.dataset import Dataset, Preset, Split, held_out, refuse_unmeasurable
from mlrpl_bench.data.file_lists import missing_rows
from mlrpl_bench.data.images.decoding import FileFacts, inspect_all
from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.processes import usable_cores
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.randomness import seed_of
from mlrpl_bench.utils.tables import counted

if TYPE_CHECKING:
    from mlrpl_bench.training.steps import Length

SPLITS = ("train", "test")
SAMPLE = 200
"""A quick check decodes this many images of each split."""

ADD_AN_OPTION = r"\b(?:add|leave these categories out with) (--set-data \w+=\w+)"
"""This pattern finds the option that would have been right in a dataset's refusal."""

IN_THIS_PROCESS = 64
"""Up to this many images are decoded without starting worker processes."""


@dataclass
class SplitFindings:
    """These findings are about one split.

    Attributes:
        problem: why it could not be loaded, or "".
        images, categories: how many; expected: how many images there should be, or None.
        inspected: images that were decoded.
        missing: files that are not there.
        broken: by what is wrong (``truncated``), files that do not decode, with the decoder's words.
        unusual: by what they are (``grey``, ``mislabelled``), files that decode and yet are worth knowing.
    """

    name: str
    problem: str = ""
    images: int = 0
    categories: int = 0
    expected: int | None = None
    inspected: int = 0
    missing: list[Path] = field(default_factory=list)
    broken: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    unusual: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Tell whether a run could read the split."""
        return not (self.problem or self.missing or self.broken) and self.images > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "problem": self.problem or None,
            "images": self.images,
            "expected images": self.expected,
            "categories": self.categories,
            "inspected": self.inspected,
            "missing": [str(path) for path in self.missing],
            "broken": _listed(self.broken),
            "unusual": _listed(self.unusual),
        }


@dataclass
class CheckResult:
    """A check result says what was found, and whether a run would succeed.

    Attributes:
        root: the folder looked at; there: what lies in it, folders with a slash at the end.
        expected_files: the tree that the dataset expects.
        quick: whether only a sample was decoded.
        obstacles: why a run would fail though both splits load. warnings: what is worth knowing.
        to_add: options that take a problem or an obstacle away, such as ``--batch 6``.
        training: learning rate and number of steps of a run without options, or "" where none could be made.
        trained: what of the backbone such a run trains, or "" where none could be made.
        needs_network: whether a run fetches pre-trained weights first; whether it can is not tried.
    """

    root: Path
    there: list[str]
    expected_files: str
    quick: bool
    splits: list[SplitFindings]
    obstacles: list[str]
    warnings: list[str]
    to_add: list[str] = field(default_factory=list)
    needs_network: bool = False
    training: str = ""
    trained: str = ""

    @property
    def options_are_enough(self) -> bool:
        """Tell whether a run with the options of `to_add` would succeed, though one without them fails."""
        return len(self.obstacles) <= len(self.to_add) and all(split.ok for split in self.splits)

    @property
    def images_can_be_skipped(self) -> bool:
        """Tell whether a run fails for images alone, and would go on with ``--on-bad-image skip``."""
        bad = any(split.missing or split.broken for split in self.splits)
        return bad and not self.obstacles and not any(split.problem for split in self.splits)

    @property
    def ok(self) -> bool:
        """Tell whether a run would succeed, as far as was looked."""
        return not self.obstacles and all(split.ok for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "root": str(self.root),
            "there": self.there,
            "expected files": self.expected_files,
            "quick": self.quick,
            "splits": {split.name: split.to_json() for split in self.splits},
            "obstacles": self.obstacles,
            "warnings": self.warnings,
            "options to add": self.to_add,
            "needs network": self.needs_network,
            "training": self.training or None,
            "trained": self.trained or None,
        }


def check(
    dataset: Dataset,
    root: Path,
    quick: bool = False,
    workers: int | None = None,
    report: Report = silent,
    preset: Preset | None = None,
    weights: str | None = None,
    evaluate_on: str = "test",
) -> CheckResult:
    """Load the splits that a run reads and decode their images, in parallel.

    Args:
        preset: the setting of a run; with it, what would stop such a run is looked for too.
        weights: what the backbone of that run begins with: a local file or ``random``; None for the usual weights.
        evaluate_on: the split that the run evaluates, ``test`` or ``val``.
        quick: decode a sample of each split (always the same one) instead of all images.
        workers: processes (0: this one); None for one a core.
        report: told about the progress as (what, done, total).
    """
    if dataset.needs_root and not root.is_dir():
        problem = f"{root} is not a folder"
        findings = [SplitFindings(name, problem) for name in SPLITS]
        return CheckResult(root, [], dataset.expected_files, quick, findings, [], [])
    loaded: dict[str, Split] = {}
    findings = []
    for name in _split_names(dataset, root, evaluate_on):
        found = SplitFindings(name, expected=dataset.expected_counts.get(name))
        try:
            loaded[name] = dataset.load(root, name)
        except UserError as error:
            found.problem = str(error)
        else:
            _inspect(loaded[name], found, quick, len(usable_cores()) if workers is None else workers, report)
        findings.append(found)
    result = CheckResult(
        root, contents(root), dataset.expected_files, quick, findings, _obstacles(loaded), _warnings(loaded, findings)
    )
    named = [option for found in findings for option in re.findall(ADD_AN_OPTION, found.problem)]
    result.to_add = [*dict.fromkeys(named)]
    if "train" in loaded and evaluate_on == "test" and not any(found.name == "test" for found in findings):
        _say_what_is_evaluated(result, loaded)
    if preset is not None and len(loaded) == len(findings):
        _look_ahead(preset, weights, result)
    return result


def _split_names(dataset: Dataset, root: Path, evaluate_on: str) -> tuple[str, ...]:
    """Return the splits to look at; the usual ones where a dataset cannot tell, as loading them says what is wrong.

    A run that evaluates on val does not read the test images.
    """
    try:
        there = dataset.splits(root)
    except UserError:
        there = SPLITS
    return tuple(name for name in there if name != "test" or evaluate_on == "test")


def _say_what_is_evaluated(result: CheckResult, loaded: dict[str, Split]) -> None:
    """Say whether a run could evaluate: without test images it can only use validation images, if told to."""
    instead = "evaluate on those of val" if "val" in loaded else "hold out a tenth of the training images"
    result.to_add.append("--evaluate-on val")
    result.obstacles.append(f"there are no test images; add --evaluate-on val to {instead}")


def contents(root: Path) -> list[str]:
    """List the names in a folder, sorted, those of folders with a slash at the end; nothing if there is no folder."""
    if not root.is_dir():
        return []
    return sorted(path.name + "/" * path.is_dir() for path in root.iterdir() if path.name[0] != ".")


def sample(paths: Sequence[Path], name: str) -> list[Path]:
    """Draw at most `SAMPLE` of the paths in their order, drawn by the split's name alone."""
    if len(paths) <= SAMPLE:
        return list(paths)
    rows = np.random.default_rng(seed_of("quick check", name)).choice(len(paths), SAMPLE, replace=False)
    return [paths[row] for row in sorted(rows.tolist())]


def _inspect(split: Split, found: SplitFindings, quick: bool, workers: int, report: Report) -> None:
    """Look at a split's files and add to what was found. Whether a file is there is asked of every one."""
    found.images, found.categories = len(split), len(split.categories)
    found.missing = [split.image_paths[row] for row in missing_rows(split.image_paths)]
    gone = set(found.missing)
    there = [path for path in split.image_paths if path not in gone]
    chosen = sample(there, found.name) if quick else there
    found.inspected = len(chosen)
    facts = inspect_all(
        chosen,
        0 if len(chosen) <= IN_THIS_PROCESS else workers,
        lambda done, total: report(f"decoding {found.name} images", done, total),
    )
    for path, fact in zip(chosen, facts, strict=True):
        _sort_in(path, fact, found)


def _sort_in(path: Path, facts: FileFacts, found: SplitFindings) -> None:
    if facts.problem is not None:
        kinds = found.broken if facts.is_fatal else found.unusual
        kinds.setdefault(facts.problem, []).append((path, facts.reason))


def _listed(kinds: dict[str, list[tuple[Path, str]]]) -> dict[str, list[dict[str, str]]]:
    return {kind: [{"file": str(path), "reason": reason} for path, reason in files] for kind, files in kinds.items()}


def _obstacles(loaded: dict[str, Split]) -> list[str]:
    """List what stops a run though the splits load."""
    if len({split.categories for split in loaded.values()}) > 1:
        return ["train and test split have different categories, or in different order"]
    try:
        if "test" in loaded:
            refuse_unmeasurable(loaded["test"], "test")
        elif "val" in loaded:
            refuse_unmeasurable(loaded["val"], "val")
        elif "train" in loaded:
            held = loaded["train"].rows(np.flatnonzero(held_out(len(loaded["train"]))))
            if not len(held):
                return [f"train has {counted(len(loaded['train']), 'image')}, too few to hold a tenth of them out"]
            refuse_unmeasurable(held, "a tenth of train, held out")
    except UserError as error:
        return [str(error)]
    return []


def _look_ahead(preset: Preset, weights: str | None, findings: CheckResult) -> None:
    """Note what would stop a run under the preset with these weights, or may."""
    images, split_names = findings.splits[0].images, {split.name for split in findings.splits}
    if not split_names & {"test", "val"}:
        images -= int(held_out(images).sum())
    if images == 1:
        findings.obstacles.append("train has one image; a step takes at least two")
    elif 1 < images < preset.batch:
        findings.to_add.append(f"--batch {images}")
        findings.obstacles.append(
            f"train has {images} images, a step takes {preset.batch}; add --batch {images}, or less"
        )
    if images >= preset.batch:
        length = _length(preset, images)
        findings.training = f"a run of {counted(preset.epochs, 'epoch')}: {length.to_text()}"
        if shortness := length.shortness():
            findings.warnings.append(shortness)
    findings.trained = _trained(preset)
    _refuse_size(preset, findings)
    if weights is not None:
        findings.obstacles += _refused_weights(preset, weights)
        return
    source = missing_weights(preset)
    if source is not None and _is_offline():
        findings.obstacles.append(
            f"the ImageNet weights {source} are not on this machine and HF_HUB_OFFLINE forbids to fetch them; name a "
            "local file with --weights FILE"
        )
    elif source is not None:
        findings.needs_network = True
        findings.warnings.append(
            f"the ImageNet weights {source} are not on this machine and will be fetched by the first run; where "
            "there is no network that fails: then name a local file with --weights FILE"
        )


def _length(preset: Preset, images: int) -> Length:
    """Compute learning rate and number of steps of a run under the preset, with the default recipe of methods."""
    from mlrpl_bench.models.method import Recipe
    from mlrpl_bench.training.steps import Length

    return Length.from_recipe(Recipe().resolve(preset), images)


def _trained(preset: Preset) -> str:
    """Say what part of the backbone is trained under the preset."""
    from mlrpl_bench.models.backbones import outline

    return f"trained of the backbone {preset.backbone}: {outline(preset.backbone, preset.trained_stages)}"


def _refuse_size(preset: Preset, findings: CheckResult) -> None:
    """Note where the backbone takes images of another size alone."""
    from mlrpl_bench.models import backbones

    if needed := backbones.size_it_needs(preset.backbone, preset.image_size):
        findings.to_add.append(f"--image-size {needed}")
        findings.obstacles.append(backbones.refusal_of_size(preset.backbone, preset.image_size, needed))


def _refused_weights(preset: Preset, weights: str) -> list[str]:
    """Say why the backbone of the preset cannot begin with these weights; empty where it can."""
    from mlrpl_bench.models import backbones

    if weights == "random":
        return []
    try:
        backbones.build(preset.backbone, weights, trained_stages=preset.trained_stages)
    except UserError as error:
        return [str(error)]
    return []


def missing_weights(preset: Preset) -> str | None:
    """Name the pre-trained weights that a run under the preset would fetch over the network; None if it needs none."""
    from mlrpl_bench.models.backbones import SMALL, pretrained_tag  # imported late, as all here: torch takes seconds

    if preset.backbone == SMALL:
        return None
    import huggingface_hub
    import timm
    import torch

    name = pretrained_tag(preset.backbone)
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return None
    if config.hf_hub_id:  # where timm looks first
        files = ("model.safetensors", "pytorch_model.bin")
        kept = [huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file) for file in files]
        there = any(isinstance(path, str) for path in kept)
    else:
        there = not config.url or Path(torch.hub.get_dir(), "checkpoints", Path(str(config.url)).name).is_file()
    return None if there else name


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _warnings(loaded: dict[str, Split], findings: list[SplitFindings]) -> list[str]:
    """List what is unusual but does not stop a run."""
    lines = [
        f"{found.name} has {counted(found.images, 'image')}, expected are {found.expected:,}; numbers will not be "
        "comparable"
        for found in findings
        if not found.problem and found.expected not in (None, found.images)
    ]
    for name, split in loaded.items():
        without = [split.categories[column] for column in np.flatnonzero(~(split.labels_NC == PRESENT).any(0))]
        if without:
            named = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
            lines.append(f"{name}: {counted(len(without), 'category', 'categories')} without an image ({named})")
        if split.num_unknown:
            lines.append(
                f"{name}: {split.num_unknown:,} of {split.labels_NC.size:,} labels are unknown; "
                + ("known ratios are shares of the given ones" if name == "train" else "they are not evaluated")
            )
    if "train" in loaded and "test" in loaded:
        shared = set(loaded["train"].image_paths) & set(loaded["test"].image_paths)
        if shared:
            are = "is" if len(shared) == 1 else "are"
            lines.append(f"{counted(len(shared), 'image')} {are} in train and in test, such as {min(shared)}")
    return lines
