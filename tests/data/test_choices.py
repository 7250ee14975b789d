"""The names to choose among are explained, and known without importing anything."""

import subprocess
import sys

import pytest

from mlrpl_bench.data import choices


@pytest.mark.parametrize("names", [choices.SCHEMES, choices.BACKENDS])
def test_every_name_can_be_typed_and_is_explained(names):
    for name, meaning in names.items():
        assert name.replace("-", "_").isidentifier() and len(meaning.split()) > 3


def test_they_import_nothing():
    code = "import sys; import mlrpl_bench.data.choices; print({'numpy', 'torch', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
