"""A record is held against today's methods and setting; what keeps it out is named."""

import dataclasses

import pytest

from mlrpl_bench.models.method import Recipe
from mlrpl_bench.records.matching import as_seen_here, options_to_give, reason_against
from mlrpl_bench.records.store import ResultStore
from tests.helpers.tiny_study import finished, method, study


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    of = study(tmp_path / "set.py")
    entry = method(tmp_path / "plain.py")
    return of, entry, ResultStore(tmp_path / "results")


def put(of, entry, store, ratio=0.5, seed=0, **changes):
    cell = dataclasses.replace(of.job(entry, ratio, seed, seed, {}).cell, **changes)
    return store.write(finished(cell), {})


def test_a_record_of_this_setting_has_no_reason_against_it(world):
    of, entry, _store = world
    assert reason_against(put(*world).cell, of, {"plain": entry}) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source_digest": "x"}, "trained before the method's file was edited"),
        ({"method": "gone"}, "of a method that is not registered"),
        ({"recipe": Recipe(epochs=2, batch=4, lr=1.0)}, "trained with another recipe of the method"),
        ({"hyperparameters": {"alpha": 1}}, "trained with other default hyper-parameters"),
        ({"hyperparameters": {"gone": 1}, "changed": ("gone",)}, "trained with other default hyper-parameters"),
    ],
)
def test_the_reason_is_named(world, change, reason):
    of, entry, _ = world
    assert reason_against(put(*world, **change).cell, of, {"plain": entry}).startswith(reason)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "other"}, "fingerprint other instead of"),
        ({"mask_scheme": "by_id"}, "mask scheme by_id instead of hcp"),
        ({"epochs": 7, "precision": "bf16-mixed"}, "precision bf16-mixed instead of 32-true, epochs 7 instead of 2"),
    ],
)
def test_another_setting_is_named_by_what_differs(world, change, words):
    of, entry, _ = world
    record = put(*world)
    cell = dataclasses.replace(record.cell, setting=dataclasses.replace(of.setting, **change))
    assert words in reason_against(cell, of, {"plain": entry})


def test_options_to_give_are_ones_that_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    today = study(tmp_path / "tiny_set.py")
    there = dataclasses.replace(today.setting, precision="32-true+compile", mask_scheme="file", bad_images="skip")
    assert sorted(options_to_give(there, today)) == [
        "--mask-file FILE",
        "--on-bad-image skip",
        "--precision 32-true --compile",
    ]


def test_a_width_that_the_record_did_not_choose_is_an_option_to_leave_out(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    today = study(tmp_path / "tiny_set.py", feature_width=20)
    there = dataclasses.replace(today.setting, feature_width=None, trained_stages=0)
    assert options_to_give(there, today) == ["--trained-stages 0", "no --feature-width"]


def test_a_row_with_a_rate_of_its_own_belongs_to_the_setting(world):
    of, entry, store = world
    cell = of.job(entry, 0.5, 0, 0, {"lr": 3}).cell
    assert reason_against(store.write(finished(cell), {}).cell, of, {"plain": entry}) is None
    lies = dataclasses.replace(cell, lr_factor=2.0)  # the recipe's rate is three times the setting's
    assert reason_against(lies, of, {"plain": entry}) == "trained with another recipe of the method"


def test_a_cell_is_of_the_row_that_it_has_under_this_setting(world, tmp_path):
    of, entry, _ = world
    methods = {"plain": entry}
    own = of.job(entry, 0.5, 0, 0, {"lr": 3}).cell
    there = study(tmp_path / "set.py", lr_multiplier=300.0)
    assert there.job(entry, 0.5, 0, 0, {}).cell.key == own.key
    assert as_seen_here(own, of, methods, {}).label == "plain[lr=3]"
    assert as_seen_here(own, there, methods, {}).label == "plain"
    usual_there = there.job(entry, 0.5, 0, 0, {}).cell
    assert reason_against(as_seen_here(usual_there, of, methods, {}), of, methods) is not None
    asked = dataclasses.replace(own, row="plain (tuned)")
    seen = as_seen_here(usual_there, of, methods, {asked.key: asked})
    assert seen.label == "plain (tuned)" and reason_against(seen, of, methods) is None
    assert as_seen_here(own, of, {}, {}) is own


def test_a_row_with_averaged_weights_belongs_to_the_setting(world):
    of, entry, _ = world
    own = of.job(entry, 0.5, 0, 0, {"ema": "2"}).cell
    assert (own.label, own.recipe.ema) == ("plain[ema=2]", 2.0)
    assert own.key != of.job(entry, 0.5, 0, 0, {}).cell.key
    assert of.job(entry, 0.5, 0, 0, {"ema": "none"}).cell.label == "plain"
    assert reason_against(own, of, {"plain": entry}) is None
    unsaid = dataclasses.replace(own, changed=())
    assert reason_against(unsaid, of, {"plain": entry}) == "trained with another recipe of the method"
