"""This module finds methods and datasets by name in a folder of files; a file is registered by lying there.

    @register_method("sarb", paper="https://arxiv.org/abs/2203.02172", published="SARB", default=True)
    @register_method("sarb_sam", attention="sam")      # an ablation: the same class, other hyper-parameters
    class SARB(Method): ...

Files are loaded by path: ``methods/`` and ``datasets/`` are not packages (see docs/decisions.md).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlrpl_bench.data.dataset import Dataset, Preset
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.entries import Alias, DatasetEntry, Entries, MethodEntry, StepEntry, Variant
from mlrpl_bench.models.finishing import JOINT, FinishingStep
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import bundled_folder

if TYPE_CHECKING:
    from mlrpl_bench.models.method import Method


Entry = TypeVar("Entry", MethodEntry, DatasetEntry)


class Registry(Generic[Entry]):
    """This holds named entries of one kind (``method`` or ``dataset``), and the files that could not be imported."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.steps: dict[str, StepEntry] = {}
        self.entries: dict[str, Entry] = Entries(self.steps)
        self.variants: list[Variant] = []
        self.aliases: dict[str, Alias] = {}
        self.failures: dict[Path, Exception] = {}

    def __getitem__(self, name: str) -> Entry:
        if name in self.entries:
            return self.entries[name]
        method, joint, step = name.rpartition(JOINT)
        if joint and self.kind == "method":
            self[method]  # refuses a method that there is not
            if JOINT in method:
                raise UserError(f"{name!r} asks for two steps; one step follows a method")
            raise UserError(
                f"no step {step!r} that follows a method, as {name!r} asks for; "
                f"there are: {', '.join(sorted(self.steps)) or 'none'}"
            )
        close = difflib.get_close_matches(name, self.entries, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        broken = "".join(f"; {describe_failure(path, error)}" for path, error in self.failures.items())
        if name in self.aliases:
            alias = self.aliases[name]
            raise UserError(
                f"{name!r} stands for {alias.method} at known ratio {alias.ratio:g}; ask for {alias.method!r} here"
            )
        raise UserError(f"no {self.kind} {name!r}; {hint}there are: {', '.join(self) or 'none'}{broken}")

    def files(self) -> set[Path]:
        """Return the files that registered something."""
        entries: list[Any] = [*self.entries.values(), *self.aliases.values(), *self.variants, *self.steps.values()]
        return {entry.path for entry in entries}

    def add_variants(self) -> None:
        """Add the variants to the entries; that of a method whose file could not be loaded is missing with it.

        Raises:
            UserError: a variant of a method that there is not.
        """
        for variant in self.variants:
            if variant.method in self.entries:
                self.add(variant.of(self.entries[variant.method]))  # type: ignore[arg-type]
            elif not self.failures:
                raise UserError(
                    f"{variant.path}: {variant.name!r} is a variant of {variant.method!r}, and there is no such method"
                )

    def check_aliases(self) -> None:
        """Check that every alias names an entry."""
        for alias in self.aliases.values():
            if alias.method not in self.entries:
                raise UserError(f"{alias.name!r} is an alias of {alias.method!r}, and there is no such {self.kind}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def add(self, entry: Any) -> None:
        """Add an entry, an alias or a step; two of one name are an error, whichever came first.

        Names are identifiers: they stand on command lines, name folders and are never markup.
        """
        if not entry.name.isidentifier():
            raise UserError(
                f"{entry.path} registers {entry.name!r}; a {self.kind}'s name is letters, digits and underscores"
            )
        other = self.entries.get(entry.name) or self.aliases.get(entry.name) or self.steps.get(entry.name)
        if other is not None:
            raise UserError(
                f"two {self.kind}s are called {entry.name!r}: {other.path} and {entry.path}; rename one of them"
            )
        if isinstance(entry, MethodEntry):
            _refuse_names_of_the_recipe(entry)
        if isinstance(entry, Alias):
            self.aliases[entry.name] = entry
        elif isinstance(entry, StepEntry):
            self.steps[entry.name] = entry
        else:
            self.entries[entry.name] = entry


def _refuse_names_of_the_recipe(entry: MethodEntry) -> None:
    for name, meaning in hyperparameters.OF_THE_RECIPE.items():
        if name in entry.cls.Hyperparameters.__dataclass_fields__:
            raise UserError(
                f"{entry.path}: {entry.name} has a hyper-parameter {name!r}, which is {meaning}; call it otherwise"
            )


_registered_by_this_file: list[Any] = []


def register_method(
    name: str,
    *,
    idea: str = "",
    paper: str = "",
    published: str = "",
    differs: str = "",
    default: bool = False,
    **settings: Any,
) -> Callable[[type[Method]], type[Method]]:
    """Register a `Method` class under a name. Repeat it with other hyper-parameters for an ablation.

    `idea`, `paper` and `differs` may be given once for all names of a class.

    Args:
        idea: what the method does, in one sentence.
        paper: its address.
        published: its row in published tables.
        differs: how it differs from its paper, in one line.
        default: whether it is trained when no methods are asked for.
        settings: hyper-parameters that this name changes.
    """

    def register(cls: type[Method]) -> type[Method]:
        path = Path(sys.modules[cls.__module__].__file__ or "")
        _registered_by_this_file.append(
            MethodEntry(name, cls, path, idea, paper, published, differs, default, settings)
        )
        return cls

    return register


def register_step(
    name: str, *, idea: str = "", paper: str = "", differs: str = "", **settings: Any
) -> Callable[[type[FinishingStep]], type[FinishingStep]]:
    """Register a `FinishingStep` under a name; ``METHOD+name`` is then a row of any method with a last linear layer.

    Args:
        idea: what it does after the last epoch, in one sentence.
        paper: its address.
        differs: how it differs from its paper, in one line.
        settings: hyper-parameters that this name changes.
    """

    def register(cls: type[FinishingStep]) -> type[FinishingStep]:
        path = Path(sys.modules[cls.__module__].__file__ or "")
        _registered_by_this_file.append(StepEntry(name, cls, path, idea, paper, differs, settings))
        return cls

    return register


def register_variant(
    name: str,
    method: str,
    *,
    idea: str = "",
    differs: str = "",
    published: str = "",
    settings: Mapping[str, Any] = MappingProxyType({}),
    **recipe: Any,
) -> None:
    """Register a method with another recipe or setting, as a row of its own; the method may be another file's.

    Args:
        idea: what is different, in one sentence.
        differs: how the row differs from the method's paper, in one line.
        published: its row in published tables.
        settings: hyper-parameters that are different.
        recipe: fields of `Recipe` that are different.
    """
    _registered_by_this_file.append(Variant(name, method, idea, differs, published, settings, recipe))


def register_alias(name: str, method: str, ratio: float) -> None:
    """Give a method at one known ratio a name: ``upper_bound`` is a method that sees every label."""
    _registered_by_this_file.append(Alias(name, method, ratio))


def register_dataset(
    name: str, *, preset: Preset, presets: Mapping[str, Preset] = MappingProxyType({})
) -> Callable[[type[Dataset]], type[Dataset]]:
    """Register a `Dataset` class under a name.

    Args:
        name: letters, digits and underscores.
        preset: the setting that all methods share on it when no other is asked for.
        presets: settings that ``--preset NAME`` asks for, by name.
    """

    def register(cls: type[Dataset]) -> type[Dataset]:
        path = Path(sys.modules[cls.__module__].__file__ or "")
        _registered_by_this_file.append(DatasetEntry(name, cls, path, preset, presets))
        return cls

    return register


def load_methods(plugins: Sequence[Path] = (), folder: Path | None = None) -> Registry[MethodEntry]:
    """Load the methods in ``methods/`` and in the user's own files (``--plugin``)."""
    return _load("method", MethodEntry, folder or bundled_folder("methods"), plugins)


def load_datasets(plugins: Sequence[Path] = (), folder: Path | None = None) -> Registry[DatasetEntry]:
    """Load the datasets in ``datasets/`` and in the user's own files (``--plugin``)."""
    return _load("dataset", DatasetEntry, folder or bundled_folder("datasets"), plugins)


def chosen_methods(methods: Registry[MethodEntry], names: Sequence[str] | None) -> list[MethodEntry]:
    """Return the methods of some names, each once.

    Args:
        names: of methods; ``all`` among them stands for every method, ``paper`` for those with published numbers.
            None for the basic ones.
    """
    entries = [methods[name] for name in methods]
    if names is None:
        return [entry for entry in entries if entry.default]
    meant = {"all": entries, "paper": [entry for entry in entries if entry.published]}
    chosen = [entry for name in names for entry in (meant[name] if name in meant else [methods[name]])]
    return list({entry.name: entry for entry in chosen}.values())


def describe_failure(path: Path, error: Exception) -> str:
    """Return one line for a file that could not be imported."""
    message = str(error).splitlines()[0] if str(error) else ""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{path} could not be loaded ({kind}{message}{line_in_file(path, error)})"


def line_in_file(path: Path, error: BaseException) -> str:
    """Return the last line of the file that led to an error, as ``, line 7``."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _load(kind: str, entry_type: type, folder: Path, plugins: Sequence[Path]) -> Registry:
    registry: Registry = Registry(kind)
    for path in sorted(folder.glob("[!_]*.py")):
        try:
            entries = _entries_of(path)
            if any(not isinstance(entry, (entry_type, *BESIDE_METHODS)) for entry in entries):
                raise UserError(f"it registers something else than a {kind}")
        except Exception as error:  # one broken file must not take the others with it
            if (shortage := shortages.shortage(error)) is not None:  # and a whole one is not to be missing
                raise shortage from error
            registry.failures[path] = error
            continue
        for entry in entries:
            _add(registry, entry)
    for path in plugins:
        if path.is_dir():
            raise UserError(f"--plugin {path} is a folder; name each of its .py files with a --plugin of its own")
        if not path.is_file():
            raise UserError(f"--plugin {path}: there is no such file")
        try:
            entries = _entries_of(path)
        except Exception as error:
            raise UserError(f"--plugin: {describe_failure(path, error)}") from error
        if not entries:
            raise UserError(f"--plugin {path} registers nothing; is @register_method or @register_dataset missing?")
        for entry in entries:
            if isinstance(entry, entry_type) or (isinstance(entry, BESIDE_METHODS) and entry_type is MethodEntry):
                _add(registry, entry)
    registry.add_variants()
    registry.check_aliases()
    return registry


BESIDE_METHODS = (Alias, Variant, StepEntry)
"""A file of methods may register these too."""


def _add(registry: Registry, entry: Any) -> None:
    if isinstance(entry, Variant):
        registry.variants.append(entry)
    else:
        registry.add(entry)


@cache
def _entries_of(path: Path) -> list[Any]:
    """Execute a file and return what it registered."""
    name = f"_mlrpl_{path.parent.name}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    _registered_by_this_file.clear()
    try:
        spec.loader.exec_module(module)
        entries = _with_family_facts(list(_registered_by_this_file))
        return [replace(entry, path=path) if isinstance(entry, (Alias, Variant)) else entry for entry in entries]
    except SystemExit as error:  # would end the command without a word
        del sys.modules[name]
        raise UserError(
            f"it calls sys.exit({error.code!r}) while it is loaded{line_in_file(path, error)}; take the call out"
        ) from error
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        _registered_by_this_file.clear()


def _with_family_facts(entries: list[Any]) -> list[Any]:
    """Give every name of a class the paper and the differences that one of its names states."""

    def family(entry: MethodEntry, fact: str) -> str:
        own = getattr(entry, fact)
        return own or next((text for other in entries if other.cls is entry.cls and (text := getattr(other, fact))), "")

    return [
        replace(entry, idea=family(entry, "idea"), paper=family(entry, "paper"), differs=family(entry, "differs"))
        if isinstance(entry, MethodEntry)
        else entry
        for entry in entries
    ]
