"""Which folder may import which. Read this first: the table is the map of the project, and it cannot rot.

Imports point one way, from the command line down to what knows nothing of the field. The package knows no method and
no data set by name; a method's file imports the public face and shared building blocks; no method knows another.
"""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlrpl_bench"

# Folder (or top file): what it may import of the package, inside functions and for type checking too.
MAY_IMPORT = {
    "utils": "",
    "data": "utils",
    "evaluation": "utils data.protocol",
    "models": "utils data",
    "launchers": "utils records.provenance",
    "records": "utils data evaluation.metrics models",
    "training": "utils data evaluation models records",
    "leaderboard": "utils data evaluation models records training",
    "tools": "utils data evaluation models records training leaderboard",
    "api": "utils data models records training leaderboard tools launchers",
    "cli": "utils data models records training tools launchers api",
}

FACE = "data models training.options utils api"
"""What the package's own ``__init__`` hands on."""

SUBFOLDERS = {  # stands "above" or "below" the files of its folder
    "data.images": "above",
    "data.label_tables": "above",
    "models.layers": "above",
    "models.parts": "below",
    "records.elsewhere": "below",
    "records.leases": "below",
    "records.packs": "above",
    "training.launchers": "above",
    "training.parts": "below",
    "leaderboard.claims": "above",
    "leaderboard.report": "above",
    "leaderboard.tables": "above",
    "api.actions": "above",
    "tools.conformance": "above",
    "tools.filling": "above",
    "tools.inspection": "above",
    "tools.profiling": "above",
    "tools.recompute": "above",
    "tools.site": "above",
    "cli.commands": "above",
    "cli.terminal": "below",
}

APP = "cli.app"
"""Puts the commands together, so it alone stands above them."""

FOLDERS_MAY_IMPORT = {
    "methods": "models.layers models.losses data",
    "datasets": "data",
}
"""Beside the public face."""

MOST_ENTRIES = {"": 12}
MOST_ENTRIES_OF_A_FOLDER = 10

WITHOUT_TESTS_OF_THEIR_OWN: set[str] = set()
"""Modules with nothing to test by itself; there is none now."""


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """``models.layers.heads`` for that file, ``models.layers`` for its ``__init__``, ``""`` for the package's."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules() -> dict[str, Path]:
    """The package's own modules by name (without what a wheel would carry of ``methods/`` and ``datasets/``)."""
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


MODULES = modules()


def imports_of(source: str, inside: str = "") -> set[str]:
    """The absolute name of everything a source imports, at any depth; `inside` is the package it belongs to.

    ``from a import b`` gives ``a.b``: whether b is a module is the reader's question.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = inside.split(".")[: len(inside.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def own_imports_of(source: str, inside: str = "mlrpl_bench") -> set[str]:
    """The package's modules that a source imports; an import of something inside a module counts as the module.

    The face, whose names are in no module, is ``""``.
    """
    own = set()
    for name in imports_of(source, inside):
        top, _, rest = name.partition(".")
        if top != "mlrpl_bench":
            continue
        candidates = [".".join(rest.split(".")[:depth]) for depth in range(rest.count(".") + 1, 0, -1)]
        own.add(next((name for name in candidates if name in MODULES), candidates[-1] if "." in rest else ""))
    return own


def own_imports_of_module(module: str) -> set[str]:
    """The package's modules that one of its modules imports."""
    path = MODULES[module]
    inside = ".".join(path.relative_to(ROOT).parent.parts)
    return own_imports_of(path.read_text(encoding="utf-8"), inside)


def is_within(name: str, word: str) -> bool:
    """Whether a module is `word` or lies in the folder `word`."""
    return name == word or name.startswith(f"{word}.")


def forbidden(imported: set[str], allowed: str) -> list[str]:
    """Those imported modules that no word of the table's line allows."""
    return sorted(name for name in imported if not any(is_within(name, word) for word in allowed.split()))


def foreign_to_the_package(source: str) -> set[str]:
    """The imports of methods and datasets, by any of the names under which one could try."""
    stems = {path.stem for folder in FOLDERS_MAY_IMPORT for path in (ROOT / folder).glob("*.py")}
    tops = {name.partition(".")[0] for name in imports_of(source)}
    inner = {name for name in own_imports_of(source) if name.partition(".")[0] in FOLDERS_MAY_IMPORT}
    return (tops & (stems | set(FOLDERS_MAY_IMPORT))) | inner


def folder_of(module: str) -> str:
    """The folder of a module, or the name of a file that lies on top."""
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_table_allows(module):
    folder = folder_of(module)
    assert folder in MAY_IMPORT or module == "", f"{module} is not in the table; say there what it may import"
    allowed = FACE if module == "" else f"{MAY_IMPORT[folder]} {folder}"
    imported = own_imports_of_module(module) - ({""} if folder in ("records", "cli") else set())  # its version
    assert forbidden(imported, allowed) == []


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_every_allowance_is_used(folder):
    imported = {name for module in MODULES if folder_of(module) == folder for name in own_imports_of_module(module)}
    unused = [word for word in MAY_IMPORT[folder].split() if not any(is_within(name, word) for name in imported)]
    assert unused == []


@pytest.mark.parametrize("subfolder", SUBFOLDERS)
def test_a_subfolder_stands_on_its_side_of_the_files_of_its_folder(subfolder):
    folder = subfolder.rpartition(".")[0]
    files = {m for m in MODULES if m.rpartition(".")[0] == folder and m not in SUBFOLDERS and m != APP}
    inside = {m for m in MODULES if is_within(m, subfolder)}
    lower, higher = (files, inside) if SUBFOLDERS[subfolder] == "above" else (inside, files)
    upwards = {m: sorted(own_imports_of_module(m) & higher) for m in lower}
    assert not any(upwards.values()), upwards


def test_every_subfolder_is_in_the_table():
    found = {name for name, path in MODULES.items() if path.name == "__init__.py" and name.count(".") == 1}
    assert found == set(SUBFOLDERS)


def test_neither_files_nor_folders_import_in_a_circle():
    files = {module: own_imports_of_module(module) - {module, ""} for module in MODULES if module}
    graphlib.TopologicalSorter(files).prepare()
    folders = {folder: {word.partition(".")[0] for word in line.split()} for folder, line in MAY_IMPORT.items()}
    graphlib.TopologicalSorter(folders).prepare()


@pytest.mark.parametrize("folder", sorted({str(path.parent.relative_to(PACKAGE)) for path in MODULES.values()}))
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    found = [p for p in (PACKAGE / folder).iterdir() if p.name not in ("__init__.py", "__pycache__")]
    assert len(found) <= (12 if folder == "." else MOST_ENTRIES_OF_A_FOLDER)


@pytest.mark.parametrize("module", MODULES)
def test_the_package_imports_no_method_and_no_dataset(module):
    assert foreign_to_the_package(MODULES[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "path",
    [path for folder in FOLDERS_MAY_IMPORT for path in sorted((ROOT / folder).glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_method_or_dataset_imports_the_face_and_shared_parts_and_no_other_one(path):
    source = path.read_text(encoding="utf-8")
    assert forbidden(own_imports_of(source) - {""}, FOLDERS_MAY_IMPORT[path.parent.name]) == []
    assert foreign_to_the_package(source) == set()
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(source)))


LOADED_ANYWAY = {*sys.stdlib_module_names, "numpy", "torch", "PIL", "mlrpl_bench"}


@pytest.mark.parametrize(
    "path",
    [path for folder in FOLDERS_MAY_IMPORT for path in sorted((ROOT / folder).glob("*.py"))],
    ids=lambda path: path.name,
)
def test_what_a_method_or_dataset_alone_needs_is_imported_where_it_is_used(path):
    """Every command loads all these files; torchvision alone takes two seconds."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in names} <= LOADED_ANYWAY


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("methods", "from mlrpl_bench.models.method import Method"),
        ("methods", "from mlrpl_bench.models.registry import register_method"),
        ("methods", "from mlrpl_bench.training.options import Options"),
        ("methods", "def late():\n    from mlrpl_bench.utils.randomness import generator_at"),
        ("methods", "import mlrpl_bench.evaluation.metrics"),
        ("datasets", "from mlrpl_bench.models.registry import register_dataset"),
        ("datasets", "from mlrpl_bench.models.layers import Trunk"),
    ],
)
def test_a_method_or_dataset_that_imports_anything_else_is_found(folder, source):
    assert forbidden(own_imports_of(source) - {""}, FOLDERS_MAY_IMPORT[folder]) != []


@pytest.mark.parametrize("folder", FOLDERS_MAY_IMPORT)
def test_the_folders_are_no_packages(folder):
    # As a package, `datasets` beside bench.py would hide Hugging Face's, which timm imports.
    assert list((ROOT / folder).rglob("__init__.py")) == []


@pytest.mark.parametrize("folder", FOLDERS_MAY_IMPORT)
def test_one_file_is_one_entry_and_there_is_nothing_else_in_the_folders(folder):
    others = {path.name for path in (ROOT / folder).iterdir() if path.suffix != ".py" and path.name[0] != "."}
    assert others <= {"__pycache__"}


def test_the_command_line_script_only_starts_the_command_line():
    assert own_imports_of((ROOT / "bench.py").read_text(encoding="utf-8")) == {APP}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in WITHOUT_TESTS_OF_THEIR_OWN])
def test_a_module_has_a_test_module(module):
    if MODULES[module].name == "__init__.py":
        pytest.skip("the face has test_face.py, and any other __init__ holds names at most")
    *folders, stem = module.split(".")
    assert (ROOT / "tests").joinpath(*folders, f"test_{stem}.py").is_file()


def test_an_init_of_a_folder_in_the_package_imports_nothing_but_names_of_its_own_folder():
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module:
            assert forbidden(own_imports_of_module(module), module) == [], path


@pytest.mark.parametrize(
    "source",
    [
        "import mlrpl_bench.training.trainer",
        "import mlrpl_bench.training.trainer as loop",
        "from mlrpl_bench.training import trainer",
        "from mlrpl_bench.training.trainer import train",
        "from mlrpl_bench.training.trainer import *",
        "from ..training import trainer",
        "from ..training.trainer import train",
        "def late():\n    from mlrpl_bench.training.trainer import train",
        "if TYPE_CHECKING:\n    from mlrpl_bench.training.trainer import Trainer",
        "try:\n    import torch\nexcept ImportError:\n    import mlrpl_bench.training.trainer",
    ],
)
def test_every_form_of_import_is_seen(source):
    assert own_imports_of(source, "mlrpl_bench.data") == {"training.trainer"}
    assert forbidden(own_imports_of(source, "mlrpl_bench.data"), "utils data") == ["training.trainer"]


def test_an_import_from_the_face_is_seen_as_one():
    assert own_imports_of("from mlrpl_bench import Method, UserError") == {""}
    assert own_imports_of("from mlrpl_bench import __version__") == {""}


@pytest.mark.parametrize(
    "source",
    [
        "import methods",
        "import datasets.scenes",
        "from methods import ssgrl",
        "from methods.ssgrl import SSGRL",
        "from mlrpl_bench.methods import ssgrl",
        "import mlrpl_bench.datasets.scenes",
        "import ssgrl",
        "def late():\n    from ssgrl import SSGRL",
    ],
)
def test_every_way_to_a_method_or_dataset_is_seen(source):
    assert foreign_to_the_package(source)


def test_an_ordinary_import_is_no_way_to_a_method_or_dataset():
    assert not foreign_to_the_package("import torch\nfrom mlrpl_bench import Dataset\nfrom sklearn import datasets")


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_module_imports_another_one(path):
    imported = {part for name in imports_of(path.read_text(encoding="utf-8"), "tests") for part in name.split(".")}
    assert not any(part.startswith("test_") for part in imported)
