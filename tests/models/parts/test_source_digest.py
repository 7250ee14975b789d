"""Every form of import leads to the local modules behind it, and to no others."""

import sys
from pathlib import Path

import pytest

from mlrpl_bench.models.parts.source_digest import local_modules, source_digest
from mlrpl_bench.models.registry import bundled_folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


FILES = {
    "helperlib.py": "SIGN = 1",
    "pkg/__init__.py": "",
    "pkg/inner.py": "from . import beside\nfrom ..pkg.sub import deep",
    "pkg/beside.py": "",
    "pkg/sub/__init__.py": "",
    "pkg/sub/deep.py": "",
    "spread/part.py": "",
    "ring_a.py": "import ring_b",
    "ring_b.py": "import ring_a\nimport helperlib",
    "plugin.py": "",
}


@pytest.fixture(params=["beside the plug-in", "on sys.path"])
def plugin(request, tmp_path, monkeypatch):
    """A function that writes a plug-in with some text, whose local modules lie in either place."""
    own = tmp_path / "own"
    libraries = own if request.param == "beside the plug-in" else tmp_path / "libraries"
    own.mkdir()
    for name, text in FILES.items():
        (libraries / name).parent.mkdir(parents=True, exist_ok=True)
        (libraries / name).write_text(text)
    if libraries != own:
        monkeypatch.syspath_prepend(libraries)

    def write(text: str) -> Path:
        (own / "plugin.py").write_text(text)
        return own / "plugin.py"

    write.libraries = libraries
    return write


PKG = ["pkg"]
INNER = ["pkg", "pkg.beside", "pkg.inner", "pkg.sub", "pkg.sub.deep"]


@pytest.mark.parametrize(
    "text, names",
    [
        ("import helperlib", ["helperlib"]),
        ("import helperlib as h", ["helperlib"]),
        ("from helperlib import SIGN", ["helperlib"]),
        ("def late():\n    import helperlib", ["helperlib"]),
        ("try:\n    import helperlib\nexcept ImportError:\n    pass", ["helperlib"]),
        ("import importlib\nimportlib.import_module('helperlib')", ["helperlib"]),
        ("__import__('helperlib')", ["helperlib"]),
        ("import pkg", PKG),
        ("import pkg.sub.deep", ["pkg", "pkg.sub", "pkg.sub.deep"]),
        ("import pkg.inner", INNER),
        ("from pkg import inner", INNER),
        ("from pkg.inner import beside", INNER),
        ("from pkg import *", INNER),
        ("import spread.part", ["spread.part"]),
        ("from spread import part", ["spread.part"]),
        ("import ring_a", ["helperlib", "ring_a", "ring_b"]),
        (
            "import json, torch, numpy.linalg, sys\nfrom mlrpl_bench.models.layers import heads",
            [],
        ),
        ("import nowhere_to_be_found", []),
    ],
)
def test_an_import_leads_to_the_local_modules_behind_it(plugin, text, names):
    assert [module.name for module in local_modules(plugin(text))] == names


@pytest.mark.parametrize("text", ["from . import helperlib", "from .helperlib import SIGN"])
def test_a_relative_import_starts_at_the_files_own_folder(plugin, text):
    names = [module.name for module in local_modules(plugin(text))]
    assert names == (["helperlib"] if plugin.libraries == plugin("").parent else [])


def test_a_file_that_imports_itself_through_another_is_not_its_own_module(plugin):
    path = plugin("import helperlib")
    (plugin.libraries / "helperlib.py").write_text("import plugin")
    others = [module for module in local_modules(path) if module.path == path.resolve()]
    assert others == []


@pytest.mark.parametrize("name", ["json", "torch"])
def test_an_installed_module_is_not_taken_for_a_file_of_its_name_beside_the_plugin(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "plugin.py").write_text(f"import {name}")
    assert local_modules(tmp_path / "plugin.py") == []


def test_a_module_that_goes_before_an_installed_one_is_local(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("")
    (tmp_path / "plugin.py").write_text("import json")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert [module.name for module in local_modules(tmp_path / "plugin.py")] == ["json"]


def test_a_folder_of_site_packages_is_no_local_one(tmp_path, monkeypatch):
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "fetched.py").write_text("")
    (tmp_path / "plugin.py").write_text("import fetched")
    monkeypatch.syspath_prepend(folder)
    assert local_modules(tmp_path / "plugin.py") == []


@pytest.mark.parametrize("text, changed", [
    ("SIGN = -1", True),
    ('"""Words."""\nSIGN = 1  # as it was', False),
    ("SIGN = (", True),
])  # fmt: skip
def test_the_digest_is_changed_by_code_in_a_local_module(plugin, text, changed):
    path = plugin("import ring_a")  # which leads to helperlib through two others
    before = source_digest(path)
    (plugin.libraries / "helperlib.py").write_text(text)
    assert (source_digest(path) != before) == changed


def test_the_digest_is_the_same_wherever_the_files_lie(tmp_path):
    digests = set()
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "helperlib.py").write_text("SIGN = 1")
        (tmp_path / place / "plugin.py").write_text("import helperlib")
        digests.add(source_digest(tmp_path / place / "plugin.py"))
    assert len(digests) == 1


def test_a_compiled_module_counts_by_its_bytes(tmp_path):
    from importlib.machinery import EXTENSION_SUFFIXES

    compiled = tmp_path / f"fast{EXTENSION_SUFFIXES[0]}"
    (tmp_path / "plugin.py").write_text("import fast")
    digests = set()
    for content in (b"\x7fELF\xff", b"\x7fELF\xfe"):
        compiled.write_bytes(content)
        digests.add(source_digest(tmp_path / "plugin.py"))
    assert len(digests) == 2


def test_the_projects_own_methods_have_no_local_modules():
    assert [local_modules(path) for path in bundled_folder("methods").glob("*.py") if local_modules(path)] == []


# Words and layout do not count, code does


SOURCE = '''
"""What this is."""
import math

SCALE = 0.5

class Mine:
    """A class."""

    def area(self, radius):
        """In square metres."""
        return math.pi * radius**2  # of a circle
'''


@pytest.mark.parametrize(
    "change",
    [
        ("# of a circle", "# as known since Archimedes"),
        ('"""In square metres."""', '"""In acres."""'),
        ('"""In square metres."""\n', ""),
        ('"""A class."""', '""""""'),
        ('"""What this is."""', ""),
        ("math.pi * radius**2", "(math.pi\n            * radius ** 2)"),
        ("\n\n", "\n\n\n\n"),
    ],
)
def test_the_digest_is_unchanged_by_comments_docstrings_and_layout(tmp_path, change):
    before, after = write(tmp_path / "before.py", SOURCE), write(tmp_path / "after.py", SOURCE.replace(*change))
    assert after.read_text() != before.read_text()
    assert source_digest(after) == source_digest(before)


@pytest.mark.parametrize(
    "change",
    [
        ("**2", "**3"),
        ("0.5", "0.25"),
        ("**2", "**2.0"),
        ("pi", "tau"),
        ("area", "surface"),
        ("radius**2", "radius*2"),
        ("(self, radius)", "(self, radius=None)"),
        ("return math", "math"),
        ("class Mine:", "class Mine(list):"),
        ("import math\n", "import math\n'no docstring'\n"),
    ],
)
def test_the_digest_is_changed_by_code(tmp_path, change):
    before, after = write(tmp_path / "before.py", SOURCE), write(tmp_path / "after.py", SOURCE.replace(*change))
    assert source_digest(after) != source_digest(before)


OURS = """
from mlrpl_bench import Method, parameter
from mlrpl_bench.models.losses import partial_bce

class Mine(Method):
    def loss(self):
        from mlrpl_bench.models.layers.graphs import Gate

        return partial_bce(Gate())
"""


@pytest.mark.parametrize(
    "change",
    [
        ("mlrpl_bench.models.losses", "mlrpl_bench.losses"),
        ("mlrpl_bench.models.layers.graphs", "mlrpl_bench"),
        (
            "from mlrpl_bench import Method, parameter",
            "from mlrpl_bench.models.method import Method\nfrom mlrpl_bench import parameter",
        ),
        ("Method, parameter", "parameter, Method"),
    ],
)
def test_the_digest_is_unchanged_by_where_in_the_package_a_name_comes_from(tmp_path, change):
    before, after = write(tmp_path / "before.py", OURS), write(tmp_path / "after.py", OURS.replace(*change))
    assert after.read_text() != before.read_text()
    assert source_digest(after) == source_digest(before)


@pytest.mark.parametrize(
    "change",
    [
        ("import partial_bce", "import asymmetric_loss as partial_bce"),
        ("import Method, parameter", "import Method"),
        ("from mlrpl_bench.models.losses", "from mlrpl_bench_of_mine"),
        ("from mlrpl_bench.models.losses", "from .mlrpl_bench"),
    ],
)
def test_the_digest_is_changed_by_which_names_are_imported(tmp_path, change):
    before, after = write(tmp_path / "before.py", OURS), write(tmp_path / "after.py", OURS.replace(*change))
    assert source_digest(after) != source_digest(before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '@register_method("a", idea="one")\nclass A: ...',
            '@register_method("a", idea="two", default=True)\nclass A: ...',
        ),
        ('x: int = parameter(1, "one", low=0)', 'x: int = parameter(1, "another", low=0)'),
        ('x: int = parameter(1, "one", low=0)', 'x: int = parameter(1, doc="one", low=0)'),
    ],
)
def test_the_digest_is_unchanged_by_words_that_describe(tmp_path, before, after):
    assert source_digest(write(tmp_path / "a.py", before)) == source_digest(write(tmp_path / "b.py", after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('@register_method("a", width=1)\nclass A: ...', '@register_method("a", width=2)\nclass A: ...'),
        ('x: int = parameter(1, "one", low=0)', 'x: int = parameter(2, "one", low=0)'),
        ('f(1, "one")', 'f(1, "two")'),
    ],
)
def test_the_digest_is_changed_by_values_beside_them(tmp_path, before, after):
    assert source_digest(write(tmp_path / "a.py", before)) != source_digest(write(tmp_path / "b.py", after))
