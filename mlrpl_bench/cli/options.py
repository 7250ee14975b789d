"""This module has the options and helpers that several commands share."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.models.hyperparameters import parse_assignments
from mlrpl_bench.records.elsewhere.remote import address_of
from mlrpl_bench.training.options import Options, check_values, described, flag
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
    from mlrpl_bench.records.store import ResultStore

DatasetOption = Annotated[
    str, typer.Option("--dataset", help="A registered dataset; see: list datasets.", autocompletion=completion.dataset)
]
RatiosOption = Annotated[
    str | None,
    typer.Option(
        "--ratios",
        help="Known shares such as 0.1,0.5, or all (0.1 to 0.9).",
        show_default="preset's",
        autocompletion=completion.one_of("all"),
    ),
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
        help="Where records and tables are kept. Repeatable: the others are only read, as is an address (s3://...).",
        show_default="results",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_OfMaskOption = Annotated[
    int | None, typer.Option("--mask-seed", help="Only cells of this mask.", show_default="those of mask seed = seed")
]
_OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the table's files.", show_default="that of the data set's tables"),
]


@dataclass(frozen=True)
class Asked:
    """This says which records a command reads that trains nothing, and how it shows what it finds.

    Its fields are declared as the command's options, in the order of the help; see `with_asked`.
    """

    dataset: DatasetOption = "scenes"
    ratios: RatiosOption = None
    mask_seed: _OfMaskOption = None
    plugin: PluginOption = None
    results_dir: ResultsOptions = None
    out: _OutOption = None
    as_json: JsonOption = False

    def request(self, options: Options) -> Request:
        """Return the request to read these records, under the setting of some options."""
        folders = plugin_files(self.plugin), result_folders(self.results_dir)
        return Request.for_reading(self.dataset, options, *folders, ratio_numbers(self.ratios), self.mask_seed)


Command = Callable[..., None]


def in_place_of(
    name: str,
    shared: Sequence[inspect.Parameter],
    made: Callable[[dict[str, Any], Mapping[str, Any]], Any],
    **types: type,
) -> Callable[[Command], Command]:
    """Give a command other parameters in place of one, whose value is made of theirs.

    Args:
        name: the parameter that the command has and its user never sees.
        shared: what stands there instead, after the command's own parameters.
        made: makes the value of `name` from those of `shared`; is given all other parameters' values too.
        types: types in the command's signature by name, which its module need not import.
    """

    def decorate(command: Command) -> Command:
        def with_given(**given: Any) -> None:
            values = {parameter.name: given.pop(parameter.name) for parameter in shared}
            command(**given, **{name: made(values, given)})

        own = inspect.signature(command, eval_str=True, locals=types).parameters
        merged = [*(own[each] for each in own if each != name), *shared]
        merged.sort(key=lambda each: each.kind)  # keyword-only parameters stand last
        with_given.__name__, with_given.__doc__ = command.__name__, command.__doc__
        with_given.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        with_given.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return with_given

    return decorate


def with_options(*names: str, also: Mapping[str, str] | None = None) -> Callable[[Command], Command]:
    """Give a command some of the options that decide a setting, in place of its parameter ``options``.

    The command gets an `Options` whose values are valid; those that it does not offer have their defaults.

    Args:
        names: fields of `Options`, in the order of the help.
        also: another spelling on the command line for some of them, such as ``{"data_root": "--root"}``.
    """
    shared = [_parameter(name, (also or {}).get(name)) for name in names]

    def made(values: dict[str, Any], _: Mapping[str, Any]) -> Options:
        if "data" in values:
            values["data"] = parse_assignments(values["data"] or [], flag("data"))
        options = Options(**values)
        check_values(options)
        return options

    return in_place_of("options", shared, made, Options=Options)


def with_setting(command: Command) -> Command:
    """Give a command all the options that decide a setting, in place of its parameter ``options``."""
    return with_options(*described())(command)


def with_fields(kind: type, name: str, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the fields of a dataclass as options, in place of a parameter that is one.

    Args:
        kind: the dataclass, whose fields are annotated as a command's parameters are.
        name: the command's parameter.
        without: fields that the command does not offer; they have their defaults.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(kind)
        if field.name not in without
    ]
    return in_place_of(name, shared, lambda values, _: kind(**values), Options=Options)


def with_asked(*, out: bool = True) -> Callable[[Command], Command]:
    """Give a command the fields of `Asked` as options, in place of its parameter ``asked``.

    Args:
        out: whether the command writes files and so offers ``--out``.
    """
    return with_fields(Asked, "asked", () if out else ("out",))


def _parameter(name: str, also: str | None) -> inspect.Parameter:
    """Return a command's parameter for a field of `Options`, as Typer reads it."""
    field = described()[name]
    facts = field.metadata
    choices = facts.get("choices")
    option = typer.Option(
        *filter(None, (also, flag(name))),
        envvar=facts.get("variable") or None,
        help=facts["doc"] + (f" Choices: {', '.join(choices)}." if choices else ""),
        show_default=facts.get("unset") or True,
        autocompletion=completion.option(name, choices or ()),
    )
    kind = list[str] | None if name == "data" else typing.get_type_hints(Options)[name]
    default = None if name == "data" else field.default
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=Annotated[kind, option]
    )


def registries(plugin: list[Path] | None) -> tuple[Registry[MethodEntry], Registry[DatasetEntry]]:
    """Load all methods and datasets; a file that cannot be loaded becomes a warning."""
    from mlrpl_bench.models.registry import describe_failure, load_datasets, load_methods

    plugins = plugin_files(plugin)
    methods, datasets = load_methods(plugins), load_datasets(plugins)
    for path, error in {**methods.failures, **datasets.failures}.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    return methods, datasets


def plugin_files(plugin: list[Path] | None) -> tuple[Path, ...]:
    """Return the plug-ins' files under names that do not depend on the current folder."""
    return tuple(path.resolve() for path in plugin or ())


def result_folders(results_dirs: list[Path] | None) -> tuple[Path, ...]:
    """Return the folders of records; the first is written to, the others are only read."""
    return tuple(results_dirs or [Path("results")])


def say_which_record(title: str, key: str, fitting: int) -> None:
    """Say on standard error which record answers, and whether others would have fitted too."""
    others = f"; chosen from {fitting} that fit, see --ratio, --seed and --cell" if fitting > 1 else ""
    print(f"asked: {title} ({key[:8]}){others}", file=sys.stderr)


def result_store(results_dirs: list[Path] | None) -> ResultStore:
    """Return a record store that writes into the first folder and reads from all."""
    from mlrpl_bench.records.store import ResultStore

    first, *others = result_folders(results_dirs)
    if not any(map(address_of, (first, *others))):
        return ResultStore(first, others)
    from mlrpl_bench.cli.display import Display

    with Display() as display:
        return ResultStore(first, others, display.report)


def program() -> str:
    """Return the command as the user types it, for hints: ``python bench.py`` or ``mlrpl-bench``."""
    return "python bench.py" if Path(sys.argv[0]).name == "bench.py" else "mlrpl-bench"


def ratio_numbers(text: str | None) -> tuple[float, ...] | None:
    """Convert ``0.1,0.5`` or ``all`` to known ratios in ascending order; None stays None, the preset's."""
    from mlrpl_bench.data.dataset import NINE_RATIOS
    from mlrpl_bench.data.protocol import check_ratios

    if text is None:
        return None
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


def group_size(text: str) -> int | None:
    """Return a group's size, at least one cell; ``auto`` gives None, which is as many as fit in memory."""
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
    """Tell whether weights are kept: ``last`` or ``none``."""
    if text not in ("last", "none"):
        raise UserError(f"--keep-weights {text} is not valid; it is last or none")
    return text == "last"


def method_names(text: str | None) -> tuple[str, ...] | None:
    """Convert ``ssgrl, sarb`` to names; None stays None, the basic methods."""
    return None if text is None else tuple(part.strip() for part in text.split(","))
