"""The commands under ``data`` as a user types them, about small data sets."""

import pytest
from PIL import Image

from tests.helpers.command import in_folder
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin

MINE = '''"""Pictures in a folder.

More about them.
"""

from dataclasses import dataclass

import numpy as np

from mlrpl_bench.data.dataset import Dataset, Preset, Split
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.registry import register_dataset


@register_dataset("mine", preset=Preset(32, "small", batch=2))
class Mine(Dataset):
    @dataclass(frozen=True)
    class Options:
        categories: int = parameter(3, "how many", low=0, high=9)

    expected_files = "ROOT/\\n  *.png"

    def load(self, root, split):
        paths = sorted(root.glob(f"{split}*.png"))
        if not paths:
            raise UserError(f"no images {root}/{split}*.png; put them there")
        columns = self.options.categories
        labels_NC = np.where(np.indices((len(paths), columns)).sum(0) % 2, 1, -1).astype(np.int8)
        return Split(range(len(paths)), paths, labels_NC, tuple(f"thing {column}" for column in range(columns)))
'''


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Type a command under ``data`` about one of two datasets: ``mine`` with a root, ``tiny`` without."""
    plugins = [write_plugin(tmp_path / "mine.py", MINE), write_plugin(tmp_path / "tiny_set.py", DATASET)]
    bench = in_folder(monkeypatch, tmp_path, *(f"--plugin={path}" for path in plugins))
    return lambda *arguments: bench("data", *arguments)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for name in ("train0", "train1", "train2", "test0", "test1"):
        Image.effect_noise((20, 30), 50).convert("RGB").save(folder / f"{name}.png")
    return folder


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Type a command about ``tiny`` in a folder that has the method ``plain`` too."""
    write_plugin(tmp_path / "tiny_set.py", DATASET)
    write_plugin(tmp_path / "plain.py", METHOD)
    return in_folder(monkeypatch, tmp_path, "--plugin=tiny_set.py")
