"""From a dataset and a user's options to a setting and its cells; what cannot be is refused in one line."""

import errno
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlrpl_bench.data import protocol
from mlrpl_bench.data.images import decoding
from mlrpl_bench.data.protocol import hide, known_mask, mask_hash
from mlrpl_bench.data.word_vectors import hashed_vectors, prepare, vectors_hash
from mlrpl_bench.models import backbones
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.study import Options, Study
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import CATEGORIES, DATASET, METHOD, method, study, write_plugin

TUNED = METHOD.replace(
    "    def __init__",
    """    @dataclass(frozen=True)
    class Hyperparameters:
        alpha: float = parameter(0.5, "a share", low=0, high=1)
        cap: int = parameter(3, "a number")

    recipe = Recipe(lr=1e-3, epochs=7)

    def __init__""",
).replace(
    "from torch import nn\n",
    """from dataclasses import dataclass

from torch import nn

from mlrpl_bench.models.hyperparameters import parameter
from mlrpl_bench.models.method import Recipe
""",
)
TUNED = TUNED.replace("\nclass Plain", '\n@register_method("bold", alpha=0.9)\nclass Plain')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def plugin(tmp_path):
    return tmp_path / "tiny_set.py"


@pytest.fixture
def entry(tmp_path):
    """A method with two hyper-parameters and a training length of its own."""
    from mlrpl_bench.models.registry import load_methods

    return load_methods([write_plugin(tmp_path / "mine.py", TUNED)])["plain"]


def variant(path, *changes: tuple[str, str], **options) -> Study:
    """A study of the tiny dataset with some of its text replaced."""
    text = DATASET
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return Study(load_datasets([write_plugin(path, text)])["tiny"], Options(**{"device": "cpu", **options}))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"precision": "8"}, "--precision 8 is not valid; it is 32-true or bf16-mixed"),
        ({"device": "tpu"}, "no device 'tpu'; there are: auto, cpu, cuda, cuda:1 ..."),
        ({"device": "cuda:x"}, "no device 'cuda:x'; there are: auto, cpu, cuda, cuda:1 ..."),
        ({"device": "cuda:"}, "no device 'cuda:'; there are: auto, cpu, cuda, cuda:1 ..."),
        ({"device": "cpu:1"}, "no device 'cpu:1'; there are: auto, cpu, cuda, cuda:1 ..."),
        ({"device": "cuda:999"}, "device cuda:999 is not there; use --device cpu or auto"),
        ({"evaluate_on": "train"}, "--evaluate-on train is not valid; it is test or val"),
        (
            {"mask_scheme": "some"},
            "--mask-scheme some is not valid; it is hcp, by_id, positives_only or single_positive",
        ),
        ({"on_bad_image": "hide"}, "--on-bad-image hide is not valid; it is error or skip"),
        ({"data": {"year": "2012"}}, "tiny has no option 'year'; it has none"),
        ({"batch": 1}, "--batch 1 must be at least 2"),
        ({"image_size": 8}, "--image-size 8 must be at least 16"),
        ({"epochs": 0}, "--epochs 0 must be at least 1"),
        ({"workers": -1}, "--loader-workers -1 must be at least 0"),
        ({"weights": "no/such.pth"}, "--weights no/such.pth: there is no such file"),
        ({"weights": "."}, "--weights .: there is no such file"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(plugin, options, line):
    with pytest.raises(UserError) as refusal:
        study(plugin, **options)
    assert str(refusal.value) == line


@pytest.mark.parametrize("name", ["nowhere", "tiny_set.py"])
def test_a_data_root_that_is_no_folder_is_refused(plugin, tmp_path, name):
    with pytest.raises(UserError, match=rf"--data-root .*{name} is not a folder"):
        study(plugin, data_root=tmp_path / name)


ROOTED = ("needs_root = False", "needs_root = True")


def test_a_dataset_that_needs_a_folder_asks_for_it(plugin):
    with pytest.raises(UserError, match=r"where is tiny\? Name its folder with --data-root PATH or MLRPL_DATA"):
        variant(plugin, ROOTED)


def test_a_dataset_that_needs_a_folder_is_loaded_from_there(plugin, tmp_path, cache):
    (tmp_path / "data").mkdir()
    loaded = variant(plugin, ROOTED, data_root=tmp_path / "data")
    assert loaded.train.image_paths[0].parent == tmp_path / "data" / "tiny"
    assert not cache.exists()


def test_a_dataset_that_needs_none_is_made_in_the_cache_whatever_folder_is_named(plugin, tmp_path, cache):
    (tmp_path / "data").mkdir()
    assert study(plugin, data_root=tmp_path / "data").train.image_paths[0].parent == cache / "tiny"


def test_splits_that_name_categories_differently_are_refused(plugin):
    backwards = ("tuple(INKS))", 'tuple(INKS)[:: 1 if split == "train" else -1])')
    with pytest.raises(UserError, match="tiny: train and test split have different categories"):
        variant(plugin, backwards)


def test_without_options_the_setting_is_the_presets(plugin):
    setting = study(plugin).setting
    assert (setting.dataset, setting.backbone, setting.image_size, setting.epochs, setting.batch) == (
        "tiny",
        "small",
        32,
        2,
        4,
    )
    assert (setting.precision, setting.protocol_version) == ("32-true", protocol.VERSION)


def test_options_change_the_setting(plugin):
    plain = study(plugin).setting
    changed = study(plugin, epochs=5, precision="bf16-mixed", backbone="resnet18", weights="random").setting
    assert changed == replace(plain, epochs=5, precision="bf16-mixed", backbone="resnet18", folded=True)
    narrow = study(plugin, trained_stages=0, feature_width=20, attention_width=10).setting
    assert narrow == replace(plain, trained_stages=0, feature_width=20, attention_width=10)


def test_the_usual_stages_and_widths_named_outright_make_the_usual_setting(plugin):
    assert study(plugin, trained_stages=1, feature_width=64, attention_width=32).setting == study(plugin).setting


@pytest.mark.parametrize("backbone", ["small", "test_resnet"])
def test_the_workbench_has_the_backbone_of_the_setting(plugin, backbone):
    chosen = {"trained_stages": 2, "feature_width": 20, "attention_width": 10}
    made = study(plugin, backbone=backbone, weights="random", **chosen).workbench.backbone
    assert (made.feature_width, made.attention_width) == (20, 10)
    trained = sum(parameter.numel() for parameter in made.trained.parameters())
    assert trained == backbones.outline(backbone, 2).trained_parameters
    norms = [module for module in made.frozen.modules() if isinstance(module, nn.BatchNorm2d)]
    assert bool(norms) == (backbone == "small")  # folded, but for the small one


def test_more_stages_than_there_are_are_refused_before_anything_is_trained(plugin):
    with pytest.raises(UserError, match="--trained-stages 9: the backbone small has 4 stages"):
        study(plugin, trained_stages=9)


def test_the_learning_rate_is_a_factor_on_the_recipes_and_part_of_the_key(plugin, tmp_path):
    plain = method(tmp_path / "mine.py")
    usual, other = (study(plugin, **options).job(plain, 0.5, 0, 0, {}).cell for options in ({}, {"lr_multiplier": 7.0}))
    assert other.recipe.lr == pytest.approx(usual.recipe.lr * 7 / 100)
    assert other.setting == usual.setting and other.key != usual.key
    assert "learning rate times 7.0 (papers: 1.0)" in study(plugin, lr_multiplier=7.0).deviations()


NAMED = (
    "ratios=(0.5, 0.9))",
    'ratios=(0.5, 0.9)), presets={"wide": Preset(48, "small", epochs=3, batch=5, feature_width=20)}',
)


def test_a_preset_can_be_asked_for_by_its_name_and_changed(plugin):
    made = variant(plugin, NAMED, preset="wide", batch=6)
    assert (made.setting.image_size, made.setting.epochs, made.setting.batch) == (48, 3, 6)
    assert (made.preset.lr_multiplier, made.setting.feature_width) == (1.0, 20)
    assert variant(plugin, NAMED).setting == study(plugin).setting


def test_a_preset_that_is_not_there_is_refused_with_those_that_are(plugin):
    with pytest.raises(UserError, match="--preset big: tiny has no such preset; there are: wide"):
        variant(plugin, NAMED, preset="big")


def test_a_data_set_without_other_presets_says_so(plugin):
    with pytest.raises(UserError, match="--preset big: tiny has no such preset; it has its usual one alone"):
        study(plugin, preset="big")


def test_options_that_do_not_change_the_numbers_do_not_change_the_setting(plugin):
    assert study(plugin, device="auto", workers=1).setting == study(plugin).setting


def test_the_setting_knows_the_labels_of_both_splits(plugin, tmp_path):
    fewer = ('12 if split == "train" else 8', '{} if split == "train" else {}')
    numbers = [(12, 8), (12, 7), (11, 8)]
    fingerprints = {
        variant(tmp_path / f"set_{number}.py", (fewer[0], fewer[1].format(*sizes))).setting.fingerprint
        for number, sizes in enumerate(numbers)
    }
    assert len(fingerprints) == 3


def weight_file(path, fill: float):
    backbone = backbones.build("small", "random")
    body = nn.ModuleList([backbone.frozen, backbone.trained])
    save_file({name: torch.full_like(tensor, fill) for name, tensor in body.state_dict().items()}, path)
    return str(path)


def test_weights_from_a_file_are_what_is_in_it_wherever_it_lies(plugin, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    paths = [
        weight_file(tmp_path / "a.safetensors", 0.25),
        weight_file(tmp_path / "elsewhere" / "b.safetensors", 0.25),
        weight_file(tmp_path / "c.safetensors", 0.5),
    ]
    one, same, other = (study(plugin, weights=path).setting.weights for path in paths)
    assert one.startswith("file:")
    assert one == same != other


def test_weights_from_a_file_are_loaded(plugin, tmp_path):
    backbone = study(plugin, weights=weight_file(tmp_path / "a.safetensors", 0.25)).workbench.backbone
    for part in (backbone.frozen, backbone.trained):
        assert all((parameter == 0.25).all() for parameter in part.parameters())


def test_weights_that_do_not_fit_are_refused(plugin, tmp_path):
    save_file({"another": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors does not fit small") as refusal:
        _ = study(plugin, weights=str(tmp_path / "a.safetensors")).workbench
    assert "\n" not in str(refusal.value)


PRETRAINED = ("lr_multiplier=100,", 'lr_multiplier=100, pretraining_split="train",')


@pytest.mark.parametrize(
    ("changes", "options", "identity"),
    [
        ([], {}, "random"),
        ([], {"weights": "random"}, "random"),
        ([PRETRAINED], {"weights": "random"}, "random"),
        ([], {"backbone": "resnet18"}, "timm:resnet18.a1_in1k"),
        ([PRETRAINED], {"backbone": "resnet18"}, "timm:resnet18.a1_in1k"),
        ([], {"backbone": "resnet18", "weights": "random"}, "random"),
    ],
)
def test_what_the_weights_are(plugin, changes, options, identity):
    assert variant(plugin, *changes, **options).setting.weights == identity


def test_weights_pre_trained_here_are_named_by_what_they_are_made_from_before_they_are_made(plugin, cache):
    assert variant(plugin, PRETRAINED).setting.weights.startswith("pretrained:")
    assert not (cache / "weights").exists()


WITH_VECTORS = ("tuple(INKS))", "tuple(INKS), np.eye(4, dtype=np.float32))")
WITH_VECTORS_TO_TRAIN = ("tuple(INKS))", 'tuple(INKS), np.eye(4, dtype=np.float32) if split == "train" else None)')


def test_a_dataset_without_word_vectors_gets_those_made_from_its_names(plugin):
    made = study(plugin)
    assert made.setting.word_vectors == "fallback:" + vectors_hash(hashed_vectors(CATEGORIES))[:16]
    assert (made.train.word_vectors_CE == hashed_vectors(CATEGORIES)).all()
    assert any(line.startswith("no word vectors given") for line in made.deviations())


@pytest.mark.parametrize("change", [WITH_VECTORS, WITH_VECTORS_TO_TRAIN])
def test_a_datasets_own_word_vectors_are_kept(plugin, change):
    made = variant(plugin, change)
    assert made.setting.word_vectors == vectors_hash(torch.eye(4).numpy())[:16]
    assert not any("word vectors" in line for line in made.deviations())


def test_prepared_word_vectors_stand_in_for_missing_ones(plugin, tmp_path):
    np.save(tmp_path / "vectors.npy", np.eye(4) + 1)
    prepare(CATEGORIES, tmp_path / "vectors.npy")
    made = study(plugin)
    assert (made.train.word_vectors_CE == np.eye(4) + 1).all()
    assert not made.setting.word_vectors.startswith("fallback")


# What is evaluated, known and left out


def test_validation_images_come_out_of_the_training_set_before_labels_are_hidden(plugin, entry):
    whole, made = study(plugin), study(plugin, evaluate_on="val")
    assert (len(made.train), len(made.test)) == (11, 1)
    assert {*made.train.ids, *made.test.ids} == set(whole.train.ids)
    cell = made.job(entry, 0.5, 0, 0, {}).cell
    assert cell.setting.evaluate_on == "val"
    assert cell.mask_hash == mask_hash(known_mask((11, 4), 0.5))
    assert cell.key != whole.job(entry, 0.5, 0, 0, {}).cell.key


@pytest.mark.parametrize("scheme", ["by_id", "positives_only", "single_positive"])
def test_a_mask_scheme_is_part_of_the_cell_and_what_the_method_gets(plugin, entry, scheme):
    made = study(plugin, mask_scheme=scheme)
    ratio = 1 if scheme == "single_positive" else 0.5
    job = made.job(entry, ratio, 0, 0, {})
    expected_NC = known_mask((12, 4), ratio, 0, scheme, ids=made.train.ids, labels_NC=made.train.labels_NC)
    assert (job.cell.setting.mask_scheme, job.cell.mask_hash) == (scheme, mask_hash(expected_NC))
    assert (CellRun(job, made.workbench).labels_NC.numpy() == hide(made.train.labels_NC, expected_NC)).all()
    assert f"mask scheme {scheme} (papers: hcp)" in made.deviations()


def test_a_mask_from_a_file_is_used(plugin, entry, tmp_path):
    mask_NC = np.arange(48).reshape(12, 4) % 2 == 0
    np.save(tmp_path / "mask.npy", mask_NC)
    job = study(plugin, mask_file=tmp_path / "mask.npy").job(entry, 0.5, 0, 0, {})
    assert (job.cell.setting.mask_scheme, job.cell.mask_hash) == ("file", mask_hash(mask_NC))


def test_damaged_images_are_left_out_after_labels_are_hidden_and_counted(plugin, entry, cache):
    whole = study(plugin)
    (cache / "tiny" / "3.png").write_bytes(b"no picture")
    made = study(plugin, on_bad_image="skip")
    assert 3 not in made.train.ids and (len(made.train), len(made.test)) == (11, 7)
    kept = [row for row in range(12) if row != 3]
    assert (made.masks(0.5, 0) == whole.masks(0.5, 0)[kept]).all()
    cell = made.job(entry, 0.5, 0, 0, {}).cell
    assert cell.setting.bad_images == "skip" and cell.setting.fingerprint != whole.setting.fingerprint
    assert "1 training images left out, missing or damaged" in made.deviations()
    assert made.skipped_images["training"] == made.skipped_images["evaluation"] == [(3, "it is no image")]
    assert whole.skipped_images == {"training": [], "evaluation": []}
    assert len(CellRun(made.job(entry, 0.5, 0, 0, {}), made.workbench).labels_NC) == 11


def test_missing_images_are_named_before_training_or_left_out_like_damaged_ones(plugin, entry, cache):
    whole = study(plugin)
    for number in (10, 11):
        (cache / "tiny" / f"{number}.png").unlink()
    with pytest.raises(UserError) as refusal:
        study(plugin)
    line = str(refusal.value)
    assert line.startswith("2 of 12 training images of tiny are missing, the first is ") and "\n" not in line
    assert str(cache / "tiny" / "10.png") in line and "--on-bad-image skip" in line
    made = study(plugin, on_bad_image="skip")
    assert made.skipped_images == {"training": [(10, "missing"), (11, "missing")], "evaluation": []}
    assert (made.masks(0.5, 0) == whole.masks(0.5, 0)[:10]).all()
    assert len(CellRun(made.job(entry, 0.5, 0, 0, {}), made.workbench).labels_NC) == 10


def test_of_held_out_images_those_left_out_are_listed_by_what_they_are_for(plugin, cache):
    held = study(plugin, evaluate_on="val")
    (evaluated,), trained = held.test.ids, held.train.ids[0]
    (cache / "tiny" / f"{trained}.png").write_bytes(b"no picture")
    made = study(plugin, evaluate_on="val", on_bad_image="skip")
    assert made.skipped_images == {"training": [(trained, "it is no image")], "evaluation": []}
    (cache / "tiny" / f"{evaluated}.png").unlink()
    with pytest.raises(UserError, match="1 of 1 evaluation images of tiny are missing"):
        study(plugin, evaluate_on="val")
    with pytest.raises(UserError, match="no images left to train on, or none to evaluate on"):
        study(plugin, evaluate_on="val", on_bad_image="skip")


def test_what_the_system_refuses_leaves_no_image_out(plugin, monkeypatch):
    study(plugin)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(decoding.Image, "open", refuse)
    monkeypatch.setattr("mlrpl_bench.training.inputs.usable_cores", lambda: ())
    with pytest.raises(UserError, match="Permission denied"):
        study(plugin, on_bad_image="skip")


def test_images_are_looked_through_once_and_the_progress_is_told(plugin, monkeypatch):
    told, decoded, decode = [], [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda path: decoded.append(path) or decode(path))
    monkeypatch.setattr("mlrpl_bench.training.inputs.usable_cores", lambda: ())  # no processes
    entry = load_datasets([write_plugin(plugin, DATASET)])["tiny"]
    for _ in range(2):
        Study(entry, Options(device="cpu", on_bad_image="skip"), lambda *words: told.append(words))
    assert len(decoded) == 12  # the eight test images are among the twelve
    assert [words for words in told if words[0] == "looking for damaged images"][-1][1:] == (12, 12)


def test_how_the_setting_differs_from_the_papers_is_listed(plugin):
    assert variant(plugin, WITH_VECTORS).deviations() == [
        "backbone small (papers: resnet101)",
        "weights random (papers: timm)",
        "image size 32 (papers: 448)",
        "epochs 2 (papers: 20)",
        "batch 4 (papers: 16)",
        "learning rate times 100 (papers: 1.0)",
    ]


def test_what_is_trained_and_other_widths_are_in_the_notes(plugin):
    lines = study(plugin, backbone="test_resnet", weights="random", feature_width=20).deviations()
    assert f"trained of the backbone: {backbones.outline('test_resnet')}" in lines
    assert "width of category features 20 (usual with this backbone: 1024)" in lines
    head_alone = study(plugin, trained_stages=0).deviations()
    assert "trained of the backbone: 0 of 4 stages, 0.00 of 0.12 million parameters" in head_alone
    assert not any("trained of" in line or "width" in line for line in study(plugin).deviations())


def test_half_precision_is_a_difference_and_the_papers_training_length_is_none(plugin):
    lines = study(plugin, precision="bf16-mixed", epochs=20).deviations()
    assert "precision bf16-mixed (papers: 32-true)" in lines
    assert not any(line.startswith("epochs") for line in lines)


def test_the_papers_setting_has_no_differences(plugin):
    preset = (
        'Preset(32, "small", epochs=2, batch=4, lr_multiplier=100, ratios=(0.5, 0.9))',
        'Preset(448, "resnet101")',
    )
    assert variant(plugin, preset, WITH_VECTORS).deviations() == []


@pytest.mark.parametrize("content", [b"", b"no weights"])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_weight_file_that_holds_nothing_is_refused_before_anything_is_trained(plugin, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"--weights .*{re.escape(name)} (is empty; get it again|cannot be read)"):
        study(plugin, weights=str(tmp_path / name))


def test_a_cell_without_a_step_is_refused(plugin, tmp_path):
    plain = method(tmp_path / "mine.py")
    assert study(plugin, batch=12).job(plain, 0.5, 0, 0, {}).cell.recipe.batch == 12
    with pytest.raises(UserError, match="plain: no batch of 13 in 12 training images; choose a smaller one with"):
        study(plugin, batch=13).job(plain, 0.5, 0, 0, {})


def test_a_cell_without_a_known_label_is_refused(plugin, tmp_path):
    plain = method(tmp_path / "mine.py")
    with pytest.raises(UserError, match="known ratio 1e-300 leaves none of the 48 labels known"):
        study(plugin).job(plain, 1e-300, 0, 0, {})


def test_a_job_has_its_cell(plugin, entry):
    of = study(plugin)
    made = of.job(entry, 0.5, seed=3, mask_seed=1, changed={"alpha": "0.25"}).cell
    assert (made.setting, made.method, made.ratio, made.seed, made.mask_seed) == (of.setting, "plain", 0.5, 3, 1)
    assert (made.hyperparameters, made.changed) == ({"alpha": 0.25, "cap": 3}, ("alpha",))
    assert made.source_digest == entry.source_digest()
    assert made.mask_hash == protocol.mask_hash(protocol.known_mask((12, 4), 0.5, 1))


def test_a_methods_recipe_is_completed_by_the_preset_and_its_own_length_wins(plugin, entry):
    recipe = study(plugin, epochs=5).job(entry, 0.5, 0, 0, {}).cell.recipe
    assert (recipe.epochs, recipe.batch, recipe.lr) == (7, 4, pytest.approx(0.1))


def test_a_method_without_a_length_of_its_own_trains_as_long_as_asked(plugin, tmp_path):
    recipe = study(plugin, epochs=5).job(method(tmp_path / "mine.py"), 0.5, 0, 0, {}).cell.recipe
    assert recipe.epochs == 5


def test_setting_a_hyper_parameter_to_what_it_is_changes_neither_key_nor_label(plugin, entry):
    of = study(plugin)
    usual, same = (of.job(entry, 0.5, 0, 0, changed).cell for changed in ({}, {"alpha": "0.5", "cap": "3"}))
    assert (usual.key, usual.label) == (same.key, same.label)


def test_setting_an_ablation_to_the_familys_default_is_a_change(plugin, entry, tmp_path):
    from mlrpl_bench.models.registry import load_methods

    bold = load_methods([tmp_path / "mine.py"])["bold"]
    of = study(plugin)
    assert of.job(bold, 0.5, 0, 0, {"alpha": "0.5"}).cell.label == "bold[alpha=0.5]"
    assert of.job(bold, 0.5, 0, 0, {"alpha": "0.9"}).cell.label == "bold"


def test_a_hyper_parameter_that_does_not_exist_is_refused(plugin, entry):
    with pytest.raises(UserError, match="plain has no hyper-parameter 'beta'"):
        study(plugin).job(entry, 0.5, 0, 0, {"beta": "1"})


def test_the_workbench_is_made_once(plugin):
    of = study(plugin)
    assert of.workbench is of.workbench


def test_a_backbone_is_fed_the_pixels_that_it_was_trained_with(plugin):
    made = study(plugin, backbone="tf_efficientnet_lite0", weights="random", image_size=64)
    half = (0.5, 0.5, 0.5)
    assert (made.setting.mean, made.setting.deviation, made.setting.interpolation) == (half, half, "bicubic")
    assert any(line.startswith("mean of the pixels (0.5, 0.5, 0.5)") for line in made.deviations())
    shared = next(made.workbench.in_order("test", 4))
    pixels_B3HW = next(made.workbench.readers["test"].in_order(4)).pixels_B3HW
    torch.testing.assert_close(shared.images_B3HW, pixels_B3HW.float() / 127.5 - 1)


def test_the_usual_backbones_are_fed_as_ever(plugin):
    made = study(plugin)
    assert "mean" not in made.setting.to_json()
    assert not any("pixels" in line or "resizing" in line for line in made.deviations())


def test_images_are_prepared_once_for_backbones_of_any_pixels(plugin):
    from mlrpl_bench.data.images.cache import prepared_folder

    names = ("small", "tf_efficientnet_lite0", "resnet101.tv_in1k")
    studies = [
        study(plugin, backbone=name, weights="random", image_size=64, image_backend="prepared-raw") for name in names
    ]
    assert len({each.view().pixels for each in studies}) == 3
    assert len({prepared_folder(each.train, each.view()) for each in studies}) == 1


def test_the_validation_setting_is_the_one_that_a_study_of_validation_images_has(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    here = study(tmp_path / "set.py")
    assert here.validation_setting() == study(tmp_path / "set.py", evaluate_on="val").setting
    assert here.validation_setting() != here.setting
