"""A method that reads hidden labels from the data set's files is caught; one that does not passes."""

import json
import sys
from concurrent.futures import Future

import pytest

from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.tools.conformance import permuted_labels
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin

READER = '''"""Pictures whose labels stand in a JSON file."""

import json

import numpy as np

from mlrpl_bench import Dataset, Preset, Split, register_dataset


@register_dataset("reader", preset=Preset(32, "small", epochs=2, batch=4, lr_multiplier=100, ratios=(0.5,)))
class Reader(Dataset):
    def load(self, root, split):
        content = json.loads((root / "labels.json").read_text())
        numbers = [image["id"] for image in content["images"]]
        labels_NC = np.full((len(numbers), 3), -1, dtype=np.int8)
        for one in content["annotations"]:
            labels_NC[numbers.index(one["image_id"]), one["category_id"]] = 1
        paths = [root / "images" / f"{number}.png" for number in numbers]
        return Split(numbers, paths, labels_NC, ("red", "green", "blue"))
'''

CHEAT = (
    METHOD.replace('"plain"', '"cheat"')
    .replace(
        "from torch import nn",
        """import json
import os
from pathlib import Path

import torch
from torch import nn""",
    )
    .replace(
        """return {"bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}""",
        """content = json.loads(Path(os.environ["MLRPL_DATA"], "labels.json").read_text())
        labels_NC = torch.full((len(content["images"]), 3), -1)
        for one in content["annotations"]:
            labels_NC[one["image_id"], one["category_id"]] = 1
        return {"bce": partial_bce(self(batch.frozen_BDHW), labels_NC[batch.index_B])}""",
    )
)

RESTLESS = (
    METHOD.replace('"plain"', '"restless"')
    .replace("from torch import nn", "import os\n\nfrom torch import nn")
    .replace(
        """batch.labels_BC)}""",
        """batch.labels_BC) * (1 + int.from_bytes(os.urandom(2), "big"))}""",
    )
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with sixteen pictures and a label file."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("reader")
    (folder / "images").mkdir()
    for number in range(16):
        Image.new("RGB", (32, 32), (15 * number, 90, 255 - 15 * number)).save(folder / "images" / f"{number}.png")
    annotations = [
        {"image_id": number, "category_id": category}
        for number in range(16)
        for category in range(3)
        if number >> category & 1
    ]
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(16)]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


class InThisProcess:
    """Stands for a pool of one new process, which takes seconds to start."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *given):
        done = Future()
        done.set_result(function(*given))
        return done


@pytest.fixture
def in_this_process(monkeypatch):
    """The trainings run in this process, whose environment and arguments they change."""
    monkeypatch.setattr(permuted_labels, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setenv(permuted_labels.ENVIRONMENT, "elsewhere")
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.fixture
def ask(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    data = load_datasets([write_plugin(tmp_path / "reader.py", READER)])

    def ask(name: str, text: str) -> str | None:
        plugin = write_plugin(tmp_path / f"{name}.py", text)
        method = load_methods([plugin])[name]
        return permuted_labels.check(method, data["reader"], Options(data_root=root), [plugin])

    return ask


def test_a_method_that_looks_at_its_batch_alone_passes_and_the_files_stay_as_they_are(ask, root, in_this_process):
    before = (root / "labels.json").read_bytes()
    assert ask("plain", METHOD) is None
    assert (root / "labels.json").read_bytes() == before


def test_a_method_that_reads_the_label_file_is_caught(ask):
    assert "scores change with the labels in the data set's files" in ask("cheat", CHEAT)


def test_a_method_that_is_not_deterministic_is_no_reader(ask, in_this_process):
    assert "make it deterministic first" in ask("restless", RESTLESS)


def test_a_method_that_cannot_be_trained_is_refused_with_the_reason(ask, in_this_process):
    with pytest.raises(UserError, match=r"broken cannot be trained: .*no labels here"):
        ask(
            "broken",
            METHOD.replace('"plain"', '"broken"').replace(
                "return {", 'raise ValueError("no labels here")\n        return {'
            ),
        )


def test_data_without_label_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    plugin = write_plugin(tmp_path / "plain.py", METHOD)
    tiny = load_datasets([write_plugin(tmp_path / "set.py", DATASET)])["tiny"]
    with pytest.raises(UserError, match="draws its labels itself"):
        permuted_labels.check(load_methods([plugin])["plain"], tiny, Options(data_root=tmp_path), [plugin])


def test_labels_in_files_that_cannot_be_permuted_are_refused(ask, in_this_process, monkeypatch):
    monkeypatch.setattr(permuted_labels, "permute_folder", lambda _: [])
    with pytest.raises(UserError, match="in none of the files below --data-root"):
        ask("plain", METHOD)
