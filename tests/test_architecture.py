"""Which file may import which. Read this first: the table is the map of the project, and it cannot rot.

Imports point one way, from the command line down to the label states. The package knows no method and no dataset;
a method knows the contracts and the shared layers and losses; no method knows another.
"""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlrpl_bench"

# Module: the modules of the package that it may import, inside functions and for type checking too.
MAY_IMPORT = {
    "errors": "",
    "randomness": "",
    "provenance": "",
    "files": "errors",
    "arrays": "",
    "resources": "errors",
    "protocol": "errors randomness",
    "masks": "arrays dataset errors files protocol",
    "hyperparameters": "errors",
    "backbones": "arrays errors randomness",
    "metrics": "errors protocol",
    "influences": "errors protocol",
    "statistics": "errors randomness",
    "losses": "protocol",
    "layers": "backbones hyperparameters losses method protocol layers.*",
    "dataset": "errors protocol",
    "method": "backbones dataset protocol",
    "registry": "dataset errors hyperparameters method resources",
    "label_cache": "arrays dataset files",
    "coco_format": "dataset errors files image_files label_cache protocol",
    "words": "arrays errors files randomness",
    "views": "",
    "image_files": "errors files",
    "images": "errors image_files randomness views",
    "prepared": "dataset errors files image_files views",
    "pretraining": "backbones dataset errors files images protocol randomness",
    "cell": "errors files method protocol",
    "workbench": "backbones dataset images masks views views",
    "cell_run": "cell errors method metrics protocol randomness workbench",
    "checkpoint": "arrays cell errors files",
    "interruption": "",
    "trainer": "cell cell_run checkpoint method resources workbench",
    "record": "arrays cell errors protocol",
    "ownership": "errors files",
    "results": "cell cell_run errors files ownership record resources",
    "study": (
        "backbones cell cell_run dataset errors files hyperparameters image_files masks prepared pretraining protocol "
        "options registry views words workbench"
    ),
    "memory": "cell_run method protocol workbench",
    "sweep": (
        "cell cell_run checkpoint errors files interruption memory ownership provenance record resources results study "
        "trainer"
    ),
    "evidence": "dataset errors files influences method metrics protocol record",
    "conformance": (
        "backbones cell cell_run checkpoint dataset errors images method protocol randomness registry trainer words "
        "workbench"
    ),
    "selection": "cell errors evidence record registry results study",
    "tables": "",
    "measurements": "dataset evidence statistics tables",
    "options": "",
    "unchanged": "files tables",
    "secondary": "evidence measurements statistics tables",
    "across": "measurements pairing protocol record registry results secondary tables",
    "leaderboard": "evidence measurements secondary selection tables",
    "published": "",
    "pairing": "evidence statistics",
    "comparing": "errors evidence measurements pairing statistics",
    "seeds_needed": "",
    "findings": "evidence measurements pairing seeds_needed statistics",
    "claims": "dataset evidence findings pairing published statistics tables",
    "display": "cell_run sweep trainer",
    "comparison": (
        "across cell cell_run claims dataset display errors evidence files hyperparameters leaderboard masks options "
        "profiling protocol published registry results secondary selection study sweep tables trainer report.*"
    ),
    "listing": "dataset errors hyperparameters registry results",
    "catalogue": "cell_run method registry study tables",
    "clock": "",
    "benches": (
        "backbones dataset hyperparameters images options protocol provenance registry study views words workbench"
    ),
    "profiling": "benches cell_run clock errors method registry tables workbench",
    "profile_cli": "benches cli_common comparison display errors options profiling registry",
    "template": "errors files registry",
    "setting_options": "hyperparameters options",
    "prediction": (
        "cell cell_run errors files image_files images prepared protocol record registry study views workbench"
    ),
    "predict_cli": (
        "cli_common display errors files image_files options prediction registry report.* results setting_options study"
    ),
    "verifying": (
        "cell_run errors files prediction protocol provenance randomness record registry results selection study "
        "trainer"
    ),
    "verify_cli": "cli_common display errors options results setting_options study verifying",
    "inspection": "backbones dataset errors image_files protocol randomness tables inspection.*",
    "report": (
        "dataset errors evidence image_files inspection.* leaderboard measurements prediction protocol report.* "
        "record tables views"
    ),
    "data_cli": (
        "cli_common dataset display errors files hyperparameters image_files masks prepared protocol registry views "
        "words inspection.*"
    ),
    "cli_common": "registry results",
    "analysis_cli": (
        "claims cli_common comparing comparison display errors evidence options selection setting_options study tables"
    ),
    "cli": "*",
}

# What a file in the folder may import of the package.
FOLDERS_MAY_IMPORT = {
    "methods": (
        "backbones dataset errors hyperparameters method protocol randomness registry "  # the contracts
        "losses layers.*"
    ),
    "datasets": "dataset errors hyperparameters protocol registry coco_format files randomness words",
}

WITHOUT_TESTS_OF_THEIR_OWN = {"errors"}
"""Nothing to test by itself: one class without a body."""


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """``layers.trunk`` for mlrpl_bench/layers/trunk.py, ``layers`` for its ``__init__``, ``""`` for the package's."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules() -> dict[str, Path]:
    """The package's own modules by name (without what a wheel would carry of ``methods/`` and ``datasets/``)."""
    found = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: path for name, path in found.items() if name}


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
    """The package's modules that a source imports; an import of something inside a module counts as the module."""
    own = set()
    for name in imports_of(source, inside):
        top, _, rest = name.partition(".")
        if top != "mlrpl_bench" or not rest:
            continue
        candidates = [".".join(rest.split(".")[:depth]) for depth in range(rest.count(".") + 1, 0, -1)]
        own.add(next((name for name in candidates if name in MODULES), candidates[-1]))
    return own - {"__version__"}


def foreign_to_the_package(source: str) -> set[str]:
    """The imports of methods and datasets, by any of the names under which one could try."""
    stems = {path.stem for folder in FOLDERS_MAY_IMPORT for path in (ROOT / folder).glob("*.py")}
    tops = {name.partition(".")[0] for name in imports_of(source)}
    inner = {name for name in own_imports_of(source) if name.partition(".")[0] in FOLDERS_MAY_IMPORT}
    return (tops & (stems | set(FOLDERS_MAY_IMPORT))) | inner


def forbidden(imported: set[str], allowed: str) -> list[str]:
    """Those imported modules that no word of the table's line allows."""

    def is_allowed(name: str) -> bool:
        return any(
            word in ("*", name) or (word.endswith(".*") and (name + ".").startswith(word[:-1]))
            for word in allowed.split()
        )

    return sorted(name for name in imported if not is_allowed(name))


def line_of_table(module: str) -> str | None:
    """The table's line for a module: its own, else that of the folder it lies in."""
    return MAY_IMPORT.get(module, MAY_IMPORT.get(module.partition(".")[0]))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_table_allows(module):
    path = MODULES[module]
    allowed = line_of_table(module)
    assert allowed is not None, f"{path.relative_to(ROOT)} is not in the table; say there what it may import"
    inside = ".".join(path.relative_to(ROOT).parent.parts)
    assert forbidden(own_imports_of(path.read_text(encoding="utf-8"), inside), allowed) == []


@pytest.mark.parametrize("module", MODULES)
def test_the_package_imports_no_method_and_no_dataset(module):
    assert foreign_to_the_package(MODULES[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "path",
    [path for folder in FOLDERS_MAY_IMPORT for path in sorted((ROOT / folder).glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_method_or_dataset_imports_contracts_and_shared_parts_and_no_other_one(path):
    source = path.read_text(encoding="utf-8")
    assert forbidden(own_imports_of(source), FOLDERS_MAY_IMPORT[path.parent.name]) == []
    assert foreign_to_the_package(source) == set()
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("folder", FOLDERS_MAY_IMPORT)
def test_the_folders_are_no_packages(folder):
    # As a package, `datasets` beside bench.py would hide Hugging Face's, which timm imports.
    assert list((ROOT / folder).rglob("__init__.py")) == []


@pytest.mark.parametrize("folder", FOLDERS_MAY_IMPORT)
def test_one_file_is_one_entry_and_there_is_nothing_else_in_the_folders(folder):
    others = {path.name for path in (ROOT / folder).iterdir() if path.suffix != ".py" and path.name[0] != "."}
    assert others <= {"__pycache__"}


def test_the_command_line_script_only_starts_the_command_line():
    assert own_imports_of((ROOT / "bench.py").read_text(encoding="utf-8")) == {"cli"}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in WITHOUT_TESTS_OF_THEIR_OWN])
def test_a_module_has_a_test_module(module):
    if MODULES[module].name == "__init__.py":
        pytest.skip("an __init__ holds nothing")
    *folders, stem = module.split(".")
    assert (ROOT / "tests").joinpath(*folders, f"test_{stem}.py").is_file()


def test_an_init_of_a_folder_in_the_package_imports_nothing():
    for path in MODULES.values():
        if path.name == "__init__.py":
            assert imports_of(path.read_text(encoding="utf-8")) == set(), path


def test_the_table_has_no_circle():
    graph = {
        module: {word for word in allowed.replace(".*", "").split() if word not in ("*", module)}
        for module, allowed in MAY_IMPORT.items()
    }
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "source",
    [
        "import mlrpl_bench.trainer",
        "import mlrpl_bench.trainer as loop",
        "from mlrpl_bench import trainer",
        "from mlrpl_bench.trainer import train",
        "from mlrpl_bench.trainer import *",
        "from . import trainer",
        "from .trainer import train",
        "def late():\n    from mlrpl_bench.trainer import train",
        "if TYPE_CHECKING:\n    from mlrpl_bench.trainer import Trainer",
        "try:\n    import torch\nexcept ImportError:\n    import mlrpl_bench.trainer",
    ],
)
def test_every_form_of_import_is_seen(source, monkeypatch):
    monkeypatch.setitem(MODULES, "trainer", PACKAGE / "trainer.py")
    assert own_imports_of(source) == {"trainer"}
    assert forbidden(own_imports_of(source), "errors protocol layers.*") == ["trainer"]


def test_modules_in_folders_are_seen_by_their_full_name(monkeypatch):
    monkeypatch.setitem(MODULES, "layers.trunk", PACKAGE / "layers" / "trunk.py")
    for source in ("from mlrpl_bench.layers import trunk", "from mlrpl_bench.layers.trunk import Trunk"):
        assert own_imports_of(source) == {"layers.trunk"}
    for source in ("from . import trunk", "from .trunk import Trunk", "from ..layers.trunk import Trunk"):
        assert own_imports_of(source, "mlrpl_bench.layers") == {"layers.trunk"}
    assert forbidden({"layers.trunk"}, "layers.*") == []
    assert forbidden({"layers.trunk"}, "protocol") == ["layers.trunk"]


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
    assert not foreign_to_the_package(
        "import torch\nfrom mlrpl_bench.dataset import Dataset\nfrom sklearn import datasets"
    )
