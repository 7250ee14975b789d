"""The small backbone is pre-trained once, and what it comes from names the weights."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from mlrpl_bench.data.dataset import Dataset, Preset, Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models import backbones, pretraining
from mlrpl_bench.models.pretraining import BackboneWeights, PretrainingRecipe, identity, weights_file
from mlrpl_bench.utils.errors import UserError

RECIPE = replace(PretrainingRecipe(), epochs=1, batch=4, image_size=16)
NUM_ROWS, STEPS = 10, 2


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{row}.png" for row in range(NUM_ROWS)]
    for path in paths:
        Image.fromarray(random.integers(256, size=(18, 18, 3), dtype=np.uint8)).save(path)
    labels_NC = np.where(np.arange(NUM_ROWS)[:, None] % 3 == np.arange(3), PRESENT, ABSENT).astype(np.int8)
    return Split(list(range(NUM_ROWS)), paths, labels_NC, ("cat", "dog", "owl"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def silent(done, total):
    pass


def test_the_weights_are_one_file_in_the_cache_named_by_their_identity(split, cache):
    path = weights_file(split, RECIPE, silent)
    assert [file for file in cache.rglob("*") if file.is_file()] == [path]
    assert identity(split, RECIPE).removeprefix("pretrained:") in path.name


def test_the_weights_are_read_back_by_the_small_backbone(split):
    path = weights_file(split, RECIPE, silent)
    backbone = backbones.build("small", str(path))
    state, expected = nn.ModuleList([backbone.frozen, backbone.trained]).state_dict(), load_file(path)
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_every_part_of_the_backbone_is_trained(split):
    untrained = load_file(weights_file(split, replace(RECIPE, lr=1e-30), silent))
    trained = load_file(weights_file(split, RECIPE, silent))
    assert not [name for name in trained if torch.equal(trained[name], untrained[name]) and "num_batches" not in name]


def test_asked_again_nothing_is_trained(split, monkeypatch):
    path = weights_file(split, RECIPE, silent)
    monkeypatch.setattr(pretraining, "_train", None)
    assert weights_file(split, RECIPE, silent) == path


def test_the_same_split_and_recipe_give_the_same_weights(split, monkeypatch, tmp_path):
    first = load_file(weights_file(split, RECIPE, silent))
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "another"))
    torch.manual_seed(123)
    second = load_file(weights_file(split, RECIPE, silent))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_torchs_global_random_state_is_left_as_it_was(split):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    weights_file(split, RECIPE, silent)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [field.name for field in fields(PretrainingRecipe)])
def test_another_recipe_is_another_identity(split, name):
    value = getattr(RECIPE, name)
    other = (0.125,) if isinstance(value, tuple) else not value if isinstance(value, bool) else value + 1
    assert identity(split, replace(RECIPE, **{name: other})) != identity(split, RECIPE)


def test_other_labels_are_another_identity(split):
    labels_NC = split.labels_NC.copy()
    labels_NC[0] = ABSENT
    assert identity(replace(split, labels_NC=labels_NC), RECIPE) != identity(split, RECIPE)


def test_where_the_images_lie_is_no_part_of_the_identity(split):
    moved = replace(split, image_paths=[path.parent / "elsewhere" / path.name for path in split.image_paths])
    assert identity(moved, RECIPE) == identity(split, RECIPE)


def test_a_run_that_breaks_off_leaves_no_weights(split, cache):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights_file(split, RECIPE, stop)
    assert not cache.exists() or not [file for file in cache.rglob("*") if file.is_file()]


def test_progress_is_reported_step_by_step_to_the_end(split):
    reports = []
    weights_file(split, replace(RECIPE, epochs=2), lambda done, total: reports.append((done, total)))
    assert reports == [(step + 1, 2 * STEPS) for step in range(2 * STEPS)]


def test_another_small_backbone_needs_another_version_of_the_recipe():
    """Weights are cached by the recipe's hash, which does not see the network."""
    backbone = backbones.build("small", "random")
    shapes = {
        name: tuple(value.shape)
        for name, value in nn.ModuleList([backbone.frozen, backbone.trained]).state_dict().items()
    }
    layout = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()[:12]
    assert {layout: PretrainingRecipe().version} == {"9acbf044efd4": 1}


@pytest.fixture
def dataset(split):
    """A dataset of which every split is the one for pre-training."""

    class Simple(Dataset):
        def load(self, root, name):
            return split if name == "simple" else None

    return Simple()


PRESET = Preset(20, "small", pretraining_split="simple", pretraining_image_size=16)


def test_a_small_backbone_is_pre_trained_where_the_preset_says_so(dataset, split, tmp_path, cache, monkeypatch):
    weights = BackboneWeights.chosen(dataset, tmp_path, PRESET, None)
    recipe = PretrainingRecipe(image_size=16)
    assert weights.identity() == identity(split, recipe)
    assert not cache.exists()
    monkeypatch.setattr(pretraining, "weights_file", lambda *made_from: made_from)
    assert weights.to_load(silent) == str((split, recipe, silent))
    of_own_size = BackboneWeights.chosen(dataset, tmp_path, replace(PRESET, pretraining_image_size=None), None)
    assert of_own_size.identity() == identity(split, PretrainingRecipe(image_size=20))


@pytest.mark.parametrize(
    ("changes", "given", "what"),
    [
        ({}, "random", "random"),
        ({"pretraining_split": None}, None, "random"),
        ({"backbone": "resnet18"}, None, "timm:resnet18.a1_in1k"),
        ({"backbone": "resnet18"}, "random", "random"),
    ],
)
def test_weights_that_are_not_made_here_are_named_and_handed_on(dataset, tmp_path, changes, given, what):
    weights = BackboneWeights.chosen(dataset, tmp_path, replace(PRESET, **changes), given)
    assert (weights.identity(), weights.to_load(silent)) == (what, given)


def test_a_file_is_named_by_what_is_in_it_and_one_that_is_empty_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.touch()
    with pytest.raises(UserError, match=r"a\.safetensors is empty"):
        BackboneWeights("small", str(path)).identity()
    save_file({"x": torch.ones(1)}, path)
    assert BackboneWeights("small", str(path)).identity() == (
        f"file:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    )
