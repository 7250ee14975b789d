"""A cell's key changes with everything that could change its number, and with nothing else."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from mlrpl_bench.data.images.transforms import ImageTransform, PixelFormat
from mlrpl_bench.models.method import Recipe
from mlrpl_bench.records.cell import Cell, Setting
from mlrpl_bench.utils.errors import UserError
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import SETTING, cell

HYPERPARAMETERS = {"prototypes": 10, "alpha": 0.5, "learned": True, "cap": None}


def another(value):
    """A value of the same kind that is not equal."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value, 0.25)
    return 0.125  # for None


@pytest.mark.parametrize("name", [field.name for field in fields(Setting)])
def test_the_key_changes_with_every_part_of_the_setting(name):
    changed = replace(SETTING, **{name: another(getattr(SETTING, name))})
    assert cell(setting=changed).key != cell().key


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_the_key_changes_with_every_part_of_the_recipe(name):
    recipe = cell().recipe
    changed = replace(recipe, **{name: another(getattr(recipe, name))})
    assert cell(recipe=changed).key != cell().key


OF_THEIR_OWN = ("setting", "recipe", "hyperparameters", "changed", "lr_factor", "row")


@pytest.mark.parametrize("name", [field.name for field in fields(Cell) if field.name not in OF_THEIR_OWN])
def test_the_key_changes_with_every_other_field(name):
    assert cell(**{name: another(getattr(cell(), name))}).key != cell().key


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_the_key_changes_with_every_hyper_parameter(name):
    changed = {**HYPERPARAMETERS, name: another(HYPERPARAMETERS[name])}
    assert cell(hyperparameters=changed).key != cell(hyperparameters=HYPERPARAMETERS).key


def test_the_key_does_not_say_who_chose_a_hyper_parameter():
    chosen = cell(hyperparameters=HYPERPARAMETERS, changed=("alpha",))
    assert chosen.key == cell(hyperparameters=HYPERPARAMETERS).key


def test_the_key_says_neither_what_a_rate_is_a_multiple_of_nor_what_a_table_calls_the_row():
    # the rate itself is in the recipe
    assert cell(lr_factor=3.0, row="plain (tuned)").key == cell().key


def test_a_rate_of_its_own_is_in_the_label_and_in_the_record():
    own = cell(lr_factor=3.0, hyperparameters=HYPERPARAMETERS, changed=("alpha",))
    assert own.label == own.full_label == "plain[lr=3, alpha=0.5]"
    assert Cell.from_json(own.to_json()).label == own.label
    assert cell(lr_factor=0.3).label == "plain[lr=0.3]"
    assert "lr_factor" not in cell().to_json()  # records are what they were


def test_a_tables_name_for_a_row_is_no_part_of_the_record():
    named = cell(lr_factor=3.0, row="plain (tuned)")
    assert (named.label, named.full_label, named.title) == (
        "plain (tuned)",
        "plain[lr=3]",
        "plain (tuned) 50 % seed 0",
    )
    assert Cell.from_json(named.to_json()).label == "plain[lr=3]"


@pytest.mark.parametrize("change", [{"lr_factor": 0}, {"lr_factor": -1.0}, {"lr_factor": "3"}, {"row": "sarb"}])
def test_a_rate_that_is_none_and_a_row_in_a_record_are_refused(change):
    with pytest.raises(UserError, match="this is not a cell of this version"):
        Cell.from_json({**cell().to_json(), **change})


def test_the_key_does_not_depend_on_the_order_of_hyper_parameters():
    backwards = dict(reversed(HYPERPARAMETERS.items()))
    assert cell(hyperparameters=backwards).key == cell(hyperparameters=HYPERPARAMETERS).key


def test_values_that_nearly_agree_give_different_keys():
    assert cell(ratio=0.1 + 0.2).key != cell(ratio=0.3).key


def test_the_key_is_the_same_in_another_process():
    code = f"from tests.helpers import tiny_study; print(tiny_study.cell(hyperparameters={HYPERPARAMETERS!r}).key)"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == cell(hyperparameters=HYPERPARAMETERS).key, done.stderr


def test_a_cell_survives_being_written_as_json():
    before = cell(hyperparameters=HYPERPARAMETERS, changed=("alpha",))
    after = Cell.from_json(json.loads(json.dumps(before.to_json())))
    assert (after.to_json(), after.key) == (before.to_json(), before.key)


@pytest.mark.parametrize("part", ["", "setting", "recipe"])
def test_a_field_that_is_not_known_is_refused(part):
    content = cell().to_json()
    (content[part] if part else content)["sizes"] = 1
    with pytest.raises(UserError, match=r"not a cell of this version: .*'sizes'"):
        Cell.from_json(content)


@pytest.mark.parametrize(("part", "name"), [("", "seed"), ("setting", "crop_sides"), ("setting", "batch")])
def test_a_field_that_is_missing_is_refused(part, name):
    content = cell().to_json()
    del (content[part] if part else content)[name]
    with pytest.raises(UserError, match=rf"not a cell of this version: .*'{name}'"):
        Cell.from_json(content)


def test_the_label_of_a_row_is_the_methods_name():
    assert cell(hyperparameters=HYPERPARAMETERS).label == "plain"


def test_the_label_of_a_row_shows_the_hyper_parameters_that_were_changed():
    assert cell(hyperparameters=HYPERPARAMETERS, changed=("alpha", "cap")).label == "plain[alpha=0.5, cap=None]"


@pytest.mark.parametrize(("ratio", "percent"), [(0.1, "10"), (0.025, "2.5"), (1.0, "100")])
def test_the_title_has_the_known_share_in_percent_and_the_seed(ratio, percent):
    assert cell(ratio=ratio, seed=2).title == f"plain {percent} % seed 2"


HALF = {"mean": (0.5, 0.5, 0.5), "deviation": (0.5, 0.5, 0.5)}


def test_the_usual_pixels_leave_the_key_as_it_was_before_there_were_others():
    before = "598584d73fb846476e3326265d7e7493d1d2e464fe1fc1d7e87b068f9474a7bf"
    assert cell(setting=replace(SETTING, protocol_version=2)).key == before
    later = {
        "mean",
        "deviation",
        "interpolation",
        "trained_stages",
        "folded",
        "feature_width",
        "attention_width",
        "pool",
    }
    assert not later & set(cell().to_json()["setting"])


def test_a_cell_of_another_use_of_the_backbone_survives_being_written_as_json():
    before = cell(
        setting=replace(SETTING, trained_stages=0, folded=True, feature_width=9, attention_width=5, pool=False)
    )
    after = Cell.from_json(json.loads(json.dumps(before.to_json())))
    assert (after.setting, after.key) == (before.setting, before.key)


def test_a_cell_of_other_pixels_survives_being_written_as_json():
    before = cell(setting=replace(SETTING, **HALF, interpolation="bilinear"))
    after = Cell.from_json(json.loads(json.dumps(before.to_json())))
    assert (after.setting, after.key) == (before.setting, before.key)
    assert after.setting.pixels == PixelFormat((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")


@pytest.mark.parametrize(
    "pixels",
    [{"mean": [0.5]}, {"deviation": [0.5, 0.5, 0]}, {"mean": "abc"}, {"mean": 1}, {"interpolation": "nearest"}],
)
def test_pixels_that_no_view_makes_are_refused(pixels):
    content = cell().to_json()
    content["setting"] |= pixels
    with pytest.raises(UserError, match="not a cell of this version"):
        Cell.from_json(content)


def test_a_setting_makes_the_view_that_it_states():
    pixels = PixelFormat((0.5,) * 3, (0.5,) * 3, "bilinear")
    changed = {"image_size": 40, "crop_sides": (0.5,), "flip": False, "transform": "fast"}
    pixel_fields = dict(zip(("mean", "deviation", "interpolation"), pixels, strict=True))
    setting = replace(SETTING, **changed, **pixel_fields)
    assert setting.view() == ImageTransform(40, (0.5,), False, "fast", pixels)


def test_the_usual_later_fields_of_a_recipe_leave_key_and_record_as_they_were():
    """The key is that of the content without these fields, as it was written before there were any."""
    content = json.loads(json.dumps(cell().to_json()))
    assert set(content["recipe"]) == {
        *("optimizer", "lr", "weight_decay", "schedule", "epochs", "batch", "grad_clip"),
    }
    assert Cell.from_json(content).key == cell().key
    averaged = cell(recipe=replace(cell().recipe, ema=2.0, scored="raw"))
    assert (averaged.to_json()["recipe"]["ema"], averaged.to_json()["recipe"]["scored"]) == (2.0, "raw")
    assert Cell.from_json(averaged.to_json()).key == averaged.key


def test_averaged_weights_of_a_row_are_in_its_label():
    own = cell(recipe=replace(cell().recipe, ema=2.0), changed=("ema",))
    assert own.label == "plain[ema=2]"
    assert cell(changed=("ema",)).label == "plain[ema=None]"
    assert Cell.from_json(own.to_json()).label == own.label


@pytest.mark.parametrize("change", [{"ema": -1.0}, {"ema": 10.0}, {"scored": "best"}])
def test_an_average_that_cannot_be_is_refused(change):
    content = cell(recipe=replace(cell().recipe, **change)).to_json()
    with pytest.raises(UserError, match="not a cell of this version: it averages"):
        Cell.from_json(content)
