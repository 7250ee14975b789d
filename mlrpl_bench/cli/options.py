"""What the files with commands share: options, and how their texts are read."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrpl_bench.models.hyperparameters import parse_assignments
from mlrpl_bench.training.options import Options, check_values, described, flag
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.data.dataset import Preset
    from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
    from mlrpl_bench.records.store import ResultStore

DatasetOption = Annotated[str, typer.Option("--dataset", help="A registered dataset; see: list datasets.")]
RatiosOption = Annotated[
    str | None,
    typer.Option("--ratios", help="Known shares such as 0.1,0.5, or all (0.1 to 0.9).", show_default="preset's"),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="Your own method or dataset file. Its code is run; nothing else that you name is. Repeatable.",
    ),
]
ResultsOptions = Annotated[
    list[Path] | None,
    typer.Option(
        "--results-dir",
        help="Where records and tables are kept. Repeatable: the others are only read.",
        show_default="results",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


MOST_SEEDS = 1000
"""Ten times what the advice on seeds ever asks for. Before anything is trained a mask is drawn for each seed and ratio:
a thousand masks of COCO take two minutes."""

Command = Callable[..., None]


def with_options(*names: str, also: Mapping[str, str] | None = None) -> Callable[[Command], Command]:
    """Give a command some of the options that decide a setting, in place of its parameter ``options``.

    The command gets an `Options` whose values are valid; those that it does not offer have their defaults.

    Args:
        names: fields of `Options`, in the order of the help.
        also: another spelling on the command line for some of them, such as ``{"data_root": "--root"}``.
    """
    shared = [_parameter(name, (also or {}).get(name)) for name in names]

    def decorate(command: Command) -> Command:
        def with_given(**given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            if "data" in values:
                values["data"] = parse_assignments(values["data"] or [], flag("data"))
            options = Options(**values)
            check_values(options)
            command(**given, options=options)

        own = inspect.signature(command, eval_str=True, locals={"Options": Options}).parameters
        merged = [parameter for name, parameter in own.items() if name != "options"] + shared
        with_given.__name__, with_given.__doc__ = command.__name__, command.__doc__
        with_given.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        with_given.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return with_given

    return decorate


def with_setting(command: Command) -> Command:
    """Give a command all the options that decide a setting, in place of its parameter ``options``."""
    return with_options(*described())(command)


def _parameter(name: str, also: str | None) -> inspect.Parameter:
    """A command's parameter for a field of `Options`, as Typer reads it."""
    field = described()[name]
    facts = field.metadata
    choices = facts.get("choices")
    option = typer.Option(
        *filter(None, (also, flag(name))),
        envvar=facts.get("variable") or None,
        help=facts["doc"] + (f" Choices: {', '.join(choices)}." if choices else ""),
        show_default=facts.get("unset") or True,
    )
    kind = list[str] | None if name == "data" else typing.get_type_hints(Options)[name]
    default = None if name == "data" else field.default
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=Annotated[kind, option]
    )


def registries(plugin: list[Path] | None) -> tuple[Registry[MethodEntry], Registry[DatasetEntry]]:
    """All methods and datasets; a file that cannot be loaded is a warning."""
    from mlrpl_bench.models.registry import describe_failure, load_datasets, load_methods

    plugins = [path.resolve() for path in plugin or ()]
    methods, datasets = load_methods(plugins), load_datasets(plugins)
    for path, error in {**methods.failures, **datasets.failures}.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    return methods, datasets


def result_store(results_dirs: list[Path] | None) -> ResultStore:
    """Writes into the first folder, reads from all."""
    from mlrpl_bench.records.store import ResultStore

    first, *others = results_dirs or [Path("results")]
    return ResultStore(first, others)


def program() -> str:
    """How the user calls us."""
    return "python bench.py" if Path(sys.argv[0]).name == "bench.py" else "mlrpl-bench"


def known_ratios(text: str | None, preset: Preset, options: Options) -> tuple[float, ...]:
    """``0.1,0.5`` or ``all`` to known ratios in ascending order; None is the preset's, 1 for one label an image."""
    from mlrpl_bench.data.dataset import NINE_RATIOS
    from mlrpl_bench.data.protocol import check_ratios

    if options.mask_file is not None and (text is None or text == "all" or "," in text):
        raise UserError("--mask-file is one mask: name its known ratio with --ratios, such as 0.1")
    if text is None:
        return (1.0,) if options.mask_scheme == "single_positive" else preset.ratios
    if text == "all":
        return NINE_RATIOS
    chosen = set()
    for part in text.split(","):
        try:
            chosen.add(float(part))
        except ValueError:
            raise UserError(f"--ratios {text}: {part!r} is no number; write 0.1,0.5 or all") from None
    check_ratios(sorted(chosen))
    return tuple(sorted(chosen))


def seed_pairs(count: int, mask_seed: int | None) -> list[tuple[int, int]]:
    """Training seed and mask seed: the same, unless one mask is held fixed."""
    if count < 1:
        raise UserError(f"--seeds {count} must be at least 1")
    if count > MOST_SEEDS:
        raise UserError(
            f"--seeds {count} must be at most {MOST_SEEDS}; a mask is drawn for each before anything is trained"
        )
    if mask_seed is not None and not 0 <= mask_seed < 2**32:
        raise UserError(f"--mask-seed {mask_seed} must be between 0 and {2**32 - 1}")
    return [(seed, seed if mask_seed is None else mask_seed) for seed in range(count)]


def group_size(text: str) -> int | None:
    """A group of at least one cell; None, for as many as fit in memory, is ``auto``."""
    if text == "auto":
        return None
    try:
        size = int(text)
    except ValueError:
        raise UserError(f"--group {text} is neither auto nor a number of cells") from None
    if size < 1:
        raise UserError(f"--group {size} must be at least 1")
    return size


def keeps_weights(text: str) -> bool:
    """``last`` or ``none``."""
    if text not in ("last", "none"):
        raise UserError(f"--keep-weights {text} is not valid; it is last or none")
    return text == "last"


def chosen_methods(methods: Registry[MethodEntry], text: str | None) -> list[MethodEntry]:
    """Methods by name, ``all``, ``paper`` (those with published numbers), or None for the basic ones."""
    entries = [methods[name] for name in methods]
    if text is None:
        return [entry for entry in entries if entry.default]
    if text == "all":
        return entries
    if text == "paper":
        return [entry for entry in entries if entry.published]
    return [methods[name] for name in dict.fromkeys(part.strip() for part in text.split(","))]
