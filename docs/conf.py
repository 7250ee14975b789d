"""This file sets up the documentation site for Sphinx; ``python -m docs.build`` builds it.

Pages are the Markdown files of this folder as they are, some files that lie outside of it, the examples, which are
executed, and what docstrings say. A link from one Markdown file to another works on a forge and on the site alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import mlrpl_bench  # noqa: E402
from docs.links import to_pages  # noqa: E402

project = "mlrpl-bench"
author = copyright = "mlrpl-bench contributors"
version = release = mlrpl_bench.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosectionlabel",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
pygments_style = "friendly"

myst_enable_extensions = ["linkify"]  # a bare address is a link, as on a forge
myst_linkify_fuzzy_links = False
myst_heading_anchors = 3

autosectionlabel_prefix_document = True
autosectionlabel_maxdepth = 3

autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # docstrings write `name` for what Markdown and README write so

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/step_",  # what is executed
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_",),  # of what ends a cell, tables alone are shown
    "plot_gallery": "True",
    "download_all_examples": False,
    "notebook_extensions": set(),  # a notebook would not find the method's file beside it
    "remove_config_comments": True,
    "reset_modules": ("matplotlib",),
    "min_reported_time": 10**6,  # how long they took depends on the machine
    "show_signature": False,
    "write_computation_times": False,
}


def setup(app: Sphinx) -> None:
    """Have links rewritten in every Markdown page and in what it includes."""

    def in_page(app: Sphinx, name: str, content: list[str]) -> None:
        if app.env.doc2path(name).suffix == ".md":
            content[0] = to_pages(content[0])

    def in_included(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
        if path.suffix == ".md":
            content[0] = to_pages(content[0])

    app.add_lexer("csv", TextLexer)  # a forge colours it, Pygments does not know it
    app.connect("source-read", in_page)
    app.connect("include-read", in_included)
