"""This module lists what a user may choose about a setting: every option with its meaning and range, written once.

The command line, the checks, the names of table files and the advice in refusals follow from the fields of `Options`.
Imports nothing that takes long, so that ``--help`` is quick.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrpl_bench.data.choices import BACKENDS, SCHEMES
from mlrpl_bench.models.hyperparameters import SMALLEST_FACTOR, parameter, plain_type
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.data.dataset import Preset

BF16 = "bf16-mixed"
PRECISIONS = ("32-true", BF16)
EVALUATE_ON = ("test", "val")
ON_BAD_IMAGE = ("error", "skip")

MOST_EPOCHS = 100_000
"""This is the largest number of epochs.

At a second an epoch it is more than a day of training; the papers train 20 epochs.
"""
MOST_IMAGES_OF_A_STEP = 65_536
"""The largest batches that were ever published for images; a batch is also held against the training set."""
LARGEST_SIDE = 4096
"""A float image of this side takes 200 MB, and a ResNet's first maps of it 1 GB; the papers' side is 448."""
MOST_STAGES = 1000
"""More than any network has; how many there are is known when it is built."""
LARGEST_WIDTH = 65_536
"""A square matrix of this width takes 17 GB; the papers' are 1,024 and 512."""
MOST_WORKERS = 1024
"""More processes than any one machine has cores for."""

LONGEST_VARIANT = 150
"""The part of a file's name that says the setting has at most so many characters."""


def _option(
    default: Any,
    doc: str,
    *,
    unset: str = "",
    variable: str = "",
    in_names: str | None = "",
    decides: str = "",
    flag: str = "",
    **valid: Any,
) -> Any:
    """Make a field of `Options`.

    Args:
        doc: what it means, for the help.
        unset: what holds where it is None, for the help.
        variable: an environment variable that gives it.
        in_names: what names of table files call it: ``""`` as the field is called, None for an option that makes
            no other setting and does not stand there.
        decides: the field of a record's setting that it decides alone, where that has another name.
        flag: what the command line calls it, where that is not the field's name.
        valid: see `parameter`.
    """
    facts = {"unset": unset, "variable": variable, "in_names": in_names, "decides": decides, "flag": flag}
    return dataclasses.field(default=default, metadata={**parameter(default, doc, **valid).metadata, **facts})


@dataclass(frozen=True, kw_only=True)
class Options:
    """These are the user's choices about a setting; None is the dataset preset's choice.

    Each field is one option of the command line: ``image_size`` is ``--image-size``, and ``data`` is ``--set-data``.
    The order of the fields is that of the help and of the values in names of table files.
    """

    data_root: Path | None = _option(  # noqa: RUF009 - makes a field
        None, "The folder with the dataset's files.", variable="MLRPL_DATA", in_names=None
    )
    evaluate_on: str = _option(
        "test", "What is evaluated; val is a tenth of the training images, for tuning.", choices=EVALUATE_ON
    )
    mask_scheme: str = _option("hcp", "How known labels are drawn; hcp is the papers' way.", choices=tuple(SCHEMES))
    image_backend: str = _option(
        "reference", "How images are made ready.", choices=tuple(BACKENDS), decides="transform"
    )
    precision: str = _option("32-true", "Precision of the networks' numbers.", choices=PRECISIONS)
    on_bad_image: str = _option(
        "error",
        "What missing and damaged images are; skip leaves them out and counts them.",
        choices=ON_BAD_IMAGE,
        decides="bad_images",
    )
    compile: bool = _option(False, "Compile the networks (needs a C++ compiler, or Triton on a GPU).")
    mask_file: Path | None = _option(  # noqa: RUF009
        None, "Use this mask (.npz, .npy) instead of drawing one.", in_names="mask"
    )
    preset: str | None = _option(None, "One of the dataset's settings, such as paper or laptop.", unset="the usual one")
    epochs: int | None = _option(None, "Training length.", unset="preset's", low=1, high=MOST_EPOCHS)
    batch: int | None = _option(None, "Images per step.", unset="preset's", low=2, high=MOST_IMAGES_OF_A_STEP)
    image_size: int | None = _option(
        None, "Side of the network's input, in pixels.", unset="preset's", low=16, high=LARGEST_SIDE
    )
    backbone: str | None = _option(None, "small, resnet101 or a timm model.", unset="preset's")
    weights: str | None = _option(None, "A local weight file, or random.", unset="pre-trained")
    trained_stages: int | None = _option(
        None,
        "How many stages of the backbone are trained, the last ones; 0 for the head alone.",
        unset="preset's",
        low=0,
        high=MOST_STAGES,
    )
    feature_width: int | None = _option(
        None, "Width of the features of a category.", unset="preset's", low=2, high=LARGEST_WIDTH
    )
    attention_width: int | None = _option(
        None, "Width in which words and positions meet.", unset="preset's", low=1, high=LARGEST_WIDTH
    )
    lr_multiplier: float | None = _option(
        None,
        "Factor on the methods' own learning rates, in place of the preset's factor.",
        unset="preset's",
        in_names="lr",
        flag="--lr",
        low=SMALLEST_FACTOR,
        high=1 / SMALLEST_FACTOR,
    )
    data: Mapping[str, str] = dataclasses.field(
        default_factory=dict,
        metadata={"doc": "An option of the dataset, name=value. Repeatable.", "flag": "--set-data", "in_names": ""},
    )
    device: str = _option("auto", "auto, cpu, cuda, cuda:1 ...", in_names=None)
    workers: int | None = _option(
        None,
        "Loader processes; numbers do not depend on it.",
        unset="by device",
        in_names=None,
        flag="--loader-workers",
        low=0,
        high=MOST_WORKERS,
    )
    deterministic: bool = _option(
        False,
        "On a GPU, the same bits in every run; slower. A CPU does so anyway, with the same number of threads.",
        in_names=None,
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON, paths as strings."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["data"] = dict(self.data)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Options:
        """Return the options that `to_json` wrote; one that is not there has its default.

        Raises:
            UserError: an option that does not exist, or a value of another type. Ranges are a matter of `check_values`.
        """
        hints = typing.get_type_hints(cls)
        if unknown := sorted(set(content) - set(hints)):
            raise UserError(f"there is no option {unknown[0]!r}; there are: {', '.join(hints)}")
        return cls(**{name: _from_json(name, value, hints[name]) for name, value in content.items()})


def _from_json(name: str, value: Any, hint: Any) -> Any:
    if name == "data":
        if isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair):
            return dict(value)
        raise UserError(f"the option data is {value!r}; it must map names to texts")
    kind, optional = plain_type(hint)
    if value is None and optional:
        return None
    written_as = str if kind is Path else kind
    if type(value) is not written_as:  # bool is an int to isinstance
        raise UserError(f"the option {name} is {value!r}; it must be {written_as.__name__}{' or none' * optional}")
    return kind(value)


def described() -> dict[str, dataclasses.Field[Any]]:
    """Return the options by name; each field's metadata says what it means and what it may be."""
    return {field.name: field for field in dataclasses.fields(Options)}


def flag(name: str) -> str:
    """Return the command line's name of an option: ``--image-size`` for ``image_size``."""
    return str(described()[name].metadata.get("flag") or f"--{name.replace('_', '-')}")


def flags_of_setting() -> dict[str, str]:
    """Return the command-line option that decides a field of a record's setting alone, by the field's name.

    Weights are not among them: a setting names what is in a file, not the file.
    """
    return {
        field.metadata.get("decides") or name: flag(name) for name, field in described().items() if name != "weights"
    }


def valid_choices(name: str) -> str:
    """Return what an option may be, in words: ``test or val``; nothing where any text or number in a range will do."""
    choices = described()[name].metadata.get("choices") or ()
    return " or ".join(filter(None, (", ".join(choices[:-1]), *choices[-1:])))


def check_values(options: Options) -> None:
    """Refuse values that no option can have; takes no time, and looks at nothing outside.

    Raises:
        UserError: a value that is not among the choices, or out of range.
    """
    for name, field in described().items():
        value, valid = getattr(options, name), field.metadata
        if value is None:
            continue
        if valid.get("choices") and value not in valid["choices"]:
            raise UserError(f"{flag(name)} {value} is not valid; it is {valid_choices(name)}")
        if valid.get("low") is not None and not value >= valid["low"]:  # NaN is not
            raise UserError(f"{flag(name)} {value} must be at least {valid['low']}")
        if valid.get("high") is not None and value > valid["high"]:
            raise UserError(f"{flag(name)} {value} must be at most {valid['high']}")


def check_options(options: Options) -> None:
    """Refuse what cannot be, before anything is loaded.

    Raises:
        UserError: see `check_values`; or a folder or a device that is not there.
    """
    from mlrpl_bench.training.parts.device import find_device  # imports torch

    check_values(options)
    if options.data_root is not None and not options.data_root.is_dir():
        raise UserError(f"{flag('data_root')} {options.data_root} is not a folder")
    find_device(options.device)


def apply_options(options: Options, preset: Preset) -> Preset:
    """Return a preset with the values that the user chose in place of its own."""
    names = {field.name for field in dataclasses.fields(preset)} & set(described())
    chosen = {name: getattr(options, name) for name in names}
    return dataclasses.replace(preset, **{name: value for name, value in chosen.items() if value is not None})


def variant(options: Options, preset: Preset) -> str:
    """Return the part of the options that differs from the data set's usual setting: ``val-by_id-epochs=5``, or
    nothing.

    Args:
        preset: the one that the options name, or the usual one.
    """
    parts: list[str] = []
    for name, field in described().items():
        value, short = getattr(options, name), field.metadata["in_names"]
        if short is None or value in (None, field.default, getattr(preset, name, None)):
            continue
        if name == "data":
            parts += [f"{option}={chosen}" for option, chosen in sorted(value.items())]
        elif value is True:
            parts.append(name)
        elif field.metadata["choices"]:
            parts.append(value)
        else:
            is_file = isinstance(value, Path) or name == "weights"
            parts.append(f"{short or name}={Path(value).stem if is_file else value}")
    return re.sub(r"[^\w=.,-]", "_", "-".join(parts))[:LONGEST_VARIANT]
