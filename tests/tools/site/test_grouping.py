"""Records of different settings, rates, masks or code never stand in one leaderboard's row."""

from dataclasses import replace

from mlrpl_bench.models.method import Recipe
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.record import Record
from mlrpl_bench.tools.site.grouping import Group, group
from tests.helpers.tiny_study import DATASET, METHOD, SETTING, cell, record, write_plugin


def grouped(*records: Record) -> list[Group]:
    return group(records, {}, {})


def seeds_of(of: Group) -> list[tuple[int, int]]:
    return sorted((each.cell.seed, each.cell.mask_seed) for each in of.records)


def test_each_setting_has_a_leaderboard_and_its_own_words():
    settings = [SETTING, replace(SETTING, epochs=3), replace(SETTING, evaluate_on="val", dataset="other")]
    found = grouped(*(record(cell(setting=each)) for each in settings))
    assert [each.about for each in found] == [
        "small backbone, 32 px, 2 epochs, batch 4, validation images",
        "small backbone, 32 px, 2 epochs, batch 4",
        "small backbone, 32 px, 3 epochs, batch 4",
    ]
    assert len({each.slug for each in found}) == 3


def test_what_is_trained_of_the_backbone_is_told_where_it_is_not_the_papers_last_stage():
    found = grouped(*(record(cell(setting=replace(SETTING, trained_stages=stages))) for stages in (0, 1, 2)))
    told = {each.setting.trained_stages: each.about.partition("batch 4")[2] for each in found}
    assert told == {0: ", the head alone trained", 1: "", 2: ", 2 stages trained"}


def test_settings_that_few_words_do_not_tell_apart_get_a_mark():
    a, b = grouped(record(), record(cell(setting=replace(SETTING, word_vectors="v"))))
    assert ", setting " in a.about and a.about != b.about


def test_seeds_that_share_one_mask_are_apart_from_those_with_their_own():
    own = [record(cell(seed=seed, mask_seed=seed)) for seed in (0, 1)]
    shared = [record(cell(seed=seed, mask_seed=0)) for seed in (1, 2)]
    found = {each.about.partition("batch 4")[2]: seeds_of(each) for each in grouped(*own, *shared)}
    assert found == {"": [(0, 0), (1, 1)], ", one mask 0": [(0, 0), (1, 0), (2, 0)]}


def test_masks_from_files_are_apart():
    setting = replace(SETTING, mask_scheme="file")
    found = grouped(*(record(cell(setting=setting, mask_hash=each)) for each in ("aa", "bb")))
    assert [each.about.rpartition(", ")[2] for each in found] == ["mask from file aa", "mask from file bb"]


def test_another_factor_on_all_learning_rates_is_apart_and_that_of_a_row_is_not(tmp_path):
    methods = load_methods([write_plugin(tmp_path / "plain.py", METHOD)])
    datasets = load_datasets([write_plugin(tmp_path / "tiny.py", DATASET)])
    usual, entry = datasets["tiny"].preset, methods["plain"]
    recipe = entry.cls.recipe.resolve(usual)
    cells = [
        cell(recipe=recipe),
        cell(recipe=replace(recipe, lr=recipe.lr * 0.1)),
        cell(recipe=entry.cls.recipe.resolve(usual, 3.0), lr_factor=3.0),
    ]
    found = group([record(each) for each in cells], methods.entries, datasets.entries)
    assert [(each.lr_multiplier, len(each.records)) for each in found] == [(100, 2), (10, 1)]
    assert [each.about.partition("batch 4")[2] for each in found] == ["", ", learning rate × 10"]


def test_a_row_has_one_version_of_its_method_and_the_others_are_named():
    new = [record(cell(seed=seed, mask_seed=seed, source_digest="new")) for seed in (0, 1)]
    old = record(cell(source_digest="old"))
    slow = record(cell(recipe=Recipe(epochs=2, batch=4, lr=1.0)))
    (found,) = grouped(old, *new)
    assert found.records == new and found.others == [(old, "trained with another version of the method's file")]
    (found,) = grouped(record(), record(cell(seed=1, mask_seed=1)), slow)
    assert found.others == [(slow, "trained with another recipe of the method")]


def test_the_version_that_is_here_stands_in_the_table_though_it_has_fewer_records(tmp_path):
    methods = load_methods([write_plugin(tmp_path / "plain.py", METHOD)])
    todays = record(cell(source_digest=methods["plain"].source_digest()))
    old = [record(cell(seed=seed, mask_seed=seed, source_digest="old")) for seed in (0, 1)]
    (found,) = group([*old, todays], methods.entries, {})
    assert found.records == [todays] and len(found.others) == 2
