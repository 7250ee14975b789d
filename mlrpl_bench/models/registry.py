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
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlrpl_bench.data.dataset import Dataset, Preset
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.source_digest import source_digest
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import PACKAGE

if TYPE_CHECKING:
    from mlrpl_bench.models.method import Method


@dataclass(frozen=True)
class MethodEntry:
    """A registered method: a class under a name, with the hyper-parameters that make it this row.

    Attributes:
        idea: what the method does, in one sentence.
        paper: the paper's address.
        published: its row in published tables, or "".
        differs: how it differs from its paper.
        default: trained by ``leaderboard`` when no methods are asked for.
        settings: hyper-parameters that differ from the class's defaults under this name.
    """

    name: str
    cls: type[Method]
    path: Path
    idea: str = ""
    paper: str = ""
    published: str = ""
    differs: str = ""
    default: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def hyperparameters(self, overrides: dict[str, Any] | None = None) -> Any:
        """The hyper-parameters under this name, changed by overrides (strings are converted and checked)."""
        return hyperparameters.make_instance(
            self.cls.Hyperparameters, {**self.settings, **(overrides or {})}, self.name
        )

    def source_digest(self) -> str:
        """Identifies what the method's file and its local modules compute: unchanged by comments and layout."""
        return source_digest(self.path)


@dataclass(frozen=True)
class Alias:
    """Another name for a method at one known ratio. Tables show it as a row of its own, such as the upper bound."""

    name: str
    method: str
    ratio: float
    path: Path = Path()


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset.

    Attributes:
        preset: the setting that all methods share on it when no other is asked for.
        presets: settings that can be asked for by name; the usual one may be among them.
    """

    name: str
    cls: type[Dataset]
    path: Path
    preset: Preset
    presets: Mapping[str, Preset] = field(default_factory=dict)

    def preset_called(self, name: str | None) -> Preset:
        """The preset of a name; the usual one for None.

        Raises:
            UserError: the dataset has no such preset.
        """
        if name is None:
            return self.preset
        if name not in self.presets:
            there = f"there are: {', '.join(self.presets)}" if self.presets else "it has its usual one alone"
            raise UserError(f"--preset {name}: {self.name} has no such preset; {there}")
        return self.presets[name]


Entry = TypeVar("Entry", MethodEntry, DatasetEntry)


class Registry(Generic[Entry]):
    """Named entries of one kind (``method`` or ``dataset``), and the files that could not be imported."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.entries: dict[str, Entry] = {}
        self.aliases: dict[str, Alias] = {}
        self.failures: dict[Path, Exception] = {}

    def __getitem__(self, name: str) -> Entry:
        if name in self.entries:
            return self.entries[name]
        close = difflib.get_close_matches(name, self.entries, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        broken = "".join(f"; {describe_failure(path, error)}" for path, error in self.failures.items())
        if name in self.aliases:
            alias = self.aliases[name]
            raise UserError(
                f"{name!r} stands for {alias.method} at known ratio {alias.ratio:g}; ask for {alias.method!r} here"
            )
        raise UserError(f"no {self.kind} {name!r}; {hint}there are: {', '.join(self) or 'none'}{broken}")

    def check_aliases(self) -> None:
        """Every alias must name an entry."""
        for alias in self.aliases.values():
            if alias.method not in self.entries:
                raise UserError(f"{alias.name!r} is an alias of {alias.method!r}, and there is no such {self.kind}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def add(self, entry: Entry | Alias) -> None:
        """Add an entry; two of one name are an error, whichever came first.

        Names are identifiers: they stand on command lines, name folders and are never markup.
        """
        if not entry.name.isidentifier():
            raise UserError(
                f"{entry.path} registers {entry.name!r}; a {self.kind}'s name is letters, digits and underscores"
            )
        other = self.entries.get(entry.name) or self.aliases.get(entry.name)
        if other is not None:
            raise UserError(
                f"two {self.kind}s are called {entry.name!r}: {other.path} and {entry.path}; rename one of them"
            )
        if isinstance(entry, MethodEntry):
            _refuse_name_of_rate(entry)
        if isinstance(entry, Alias):
            self.aliases[entry.name] = entry
        else:
            self.entries[entry.name] = entry


def _refuse_name_of_rate(entry: MethodEntry) -> None:
    if hyperparameters.RATE in entry.cls.Hyperparameters.__dataclass_fields__:
        raise UserError(
            f"{entry.path}: {entry.name} has a hyper-parameter {hyperparameters.RATE!r}, which is "
            "the factor on any method's learning rate; call it otherwise"
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
    """The methods in ``methods/`` and in the user's own files (``--plugin``)."""
    return _load("method", MethodEntry, folder or bundled_folder("methods"), plugins)


def load_datasets(plugins: Sequence[Path] = (), folder: Path | None = None) -> Registry[DatasetEntry]:
    """The datasets in ``datasets/`` and in the user's own files (``--plugin``)."""
    return _load("dataset", DatasetEntry, folder or bundled_folder("datasets"), plugins)


def chosen_methods(methods: Registry[MethodEntry], names: Sequence[str] | None) -> list[MethodEntry]:
    """The methods of some names, each once.

    Args:
        names: ``["all"]``; ``["paper"]`` for those with published numbers; None for the basic ones.
    """
    entries = [methods[name] for name in methods]
    if names is None:
        return [entry for entry in entries if entry.default]
    if list(names) == ["all"]:
        return entries
    if list(names) == ["paper"]:
        return [entry for entry in entries if entry.published]
    return [methods[name] for name in dict.fromkeys(names)]


def bundled_folder(name: str) -> Path:
    """``methods`` or ``datasets``: inside the package (a wheel), else beside it (a checkout).

    Inside first: beside an installed package may lie somebody else's ``datasets``.
    """
    for folder in (PACKAGE / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise UserError(f"no folder {name}/ in or beside {PACKAGE}; the installation is incomplete, install it again")


def describe_failure(path: Path, error: Exception) -> str:
    """One line for a file that could not be imported."""
    message = str(error).splitlines()[0] if str(error) else ""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{path} could not be loaded ({kind}{message}{line_in_file(path, error)})"


def line_in_file(path: Path, error: BaseException) -> str:
    """The last line of the file that led to an error, as ``, line 7``."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _load(kind: str, entry_type: type, folder: Path, plugins: Sequence[Path]) -> Registry:
    registry: Registry = Registry(kind)
    for path in sorted(folder.glob("[!_]*.py")):
        try:
            entries = _entries_of(path)
            if any(not isinstance(entry, (entry_type, Alias)) for entry in entries):
                raise UserError(f"it registers something else than a {kind}")
        except Exception as error:  # one broken file must not take the others with it
            if (shortage := shortages.shortage(error)) is not None:  # and a whole one is not to be missing
                raise shortage from error
            registry.failures[path] = error
            continue
        for entry in entries:
            registry.add(entry)
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
            if isinstance(entry, entry_type) or (isinstance(entry, Alias) and entry_type is MethodEntry):
                registry.add(entry)
    registry.check_aliases()
    return registry


@cache
def _entries_of(path: Path) -> list[MethodEntry | DatasetEntry | Alias]:
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
        return [replace(entry, path=path) if isinstance(entry, Alias) else entry for entry in entries]
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
