"""What a request means: which cells, which records stand in its table, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mlrpl_bench import api
from mlrpl_bench.api import Request, compare
from mlrpl_bench.data.dataset import NINE_RATIOS, Preset
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.study import Options, Study
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import DATASET, METHOD, contents, finished, write_plugin

PRESET = Preset(32, "small", ratios=(0.2, 0.4))


@pytest.mark.parametrize(
    ("text", "ratios"),
    [
        (None, (0.2, 0.4)),
        ("all", NINE_RATIOS),
        ("0.5", (0.5,)),
        ("0.5,0.1", (0.1, 0.5)),
        (" 0.5 , 1", (0.5, 1.0)),
        ("0.1,0.10,1e-1", (0.1,)),
    ],
)
def test_ratios_are_listed_or_all_or_the_presets(text, ratios):
    assert api.ratios(text, PRESET, Options()) == ratios


def test_one_label_an_image_has_one_column_and_a_mask_file_one_ratio():
    assert api.ratios(None, PRESET, Options(mask_scheme="single_positive")) == (1.0,)
    assert api.ratios("0.3", PRESET, Options(mask_file=Path("mask.npz"))) == (0.3,)
    for text in (None, "all", "0.1,0.5"):
        with pytest.raises(UserError, match="name its known ratio"):
            api.ratios(text, PRESET, Options(mask_file=Path("mask.npz")))


@pytest.mark.parametrize("text", ["0", "1.5", "0.5,-0.1", "nan", "inf", "x", "", "0.5,", "0.1;0.5", "50%"])
def test_ratios_that_are_none_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"outside \(0, 1\]|is no number; write 0\.1,0\.5 or all") as refusal:
        api.ratios(text, PRESET, Options())
    assert "\n" not in str(refusal.value)


def test_a_seed_is_that_of_the_mask_too():
    assert api.seed_pairs(3, None) == [(0, 0), (1, 1), (2, 2)]


def test_the_mask_can_be_held_fixed():
    assert api.seed_pairs(2, 7) == [(0, 7), (1, 7)]


@pytest.mark.parametrize(
    ("count", "mask_seed", "line"),
    [
        (0, None, "--seeds 0 must be at least 1"),
        (1, -1, "--mask-seed -1 must be between 0 and 4294967295"),
        (1, 2**32, "--mask-seed 4294967296 must be between 0 and 4294967295"),
    ],
)
def test_seeds_that_cannot_be_are_refused(count, mask_seed, line):
    with pytest.raises(UserError, match=re.escape(line)):
        api.seed_pairs(count, mask_seed)


@pytest.mark.parametrize(("text", "size"), [("auto", None), ("1", 1), ("12", 12)])
def test_a_group_is_a_number_of_cells_or_as_many_as_fit(text, size):
    assert api.group(text) == size


@pytest.mark.parametrize("text", ["0", "-3", "many", "", "1.5", "Auto"])
def test_groups_that_cannot_be_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"must be at least 1|is neither auto nor a number of cells") as refusal:
        api.group(text)
    assert "\n" not in str(refusal.value)


def test_settings_are_names_and_texts():
    assert api.parse_assignments(["alpha=0.3", " cap = none ", "path=a=b"]) == {
        "alpha": "0.3",
        "cap": "none",
        "path": "a=b",
    }


def test_the_last_of_two_settings_of_one_name_holds():
    assert api.parse_assignments(["alpha=0.3", "alpha=0.4"]) == {"alpha": "0.4"}


@pytest.mark.parametrize("pair", ["alpha", "=3", ""])
def test_a_setting_without_name_or_value_is_refused(pair):
    with pytest.raises(UserError, match="is not valid; write it as name=value"):
        api.parse_assignments([pair])


def test_weights_are_kept_or_not():
    assert (api.keep_weights("last"), api.keep_weights("none")) == (True, False)
    with pytest.raises(UserError, match="--keep-weights maybe is not valid; it is last or none"):
        api.keep_weights("maybe")


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Three methods, and none besides."""
    folder = tmp_path_factory.mktemp("methods")
    head, body = METHOD.split('@register_method("plain", paper="https://example.org/plain", differs="shorter")\n')
    names = {"basic": "default=True", "shown": 'published="ROW"', "both": 'default=True, published="B"'}
    lines = "".join(f'@register_method("{name}", {facts})\n' for name, facts in names.items())
    write_plugin(folder / "family.py", head + lines + body)
    return load_methods(folder=folder)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ["basic", "both"]),
        ("all", ["basic", "both", "shown"]),
        ("paper", ["both", "shown"]),
        ("shown", ["shown"]),
        ("shown,basic", ["shown", "basic"]),
        ("shown, basic", ["shown", "basic"]),
        ("shown, shown,shown", ["shown"]),
    ],
)
def test_methods_are_chosen_by_name_or_kind(methods, text, names):
    assert [entry.name for entry in api.chosen_methods(methods, text)] == names


@pytest.mark.parametrize("text", ["", "shown,", "shown,shwn"])
def test_a_method_that_is_not_there_is_refused(methods, text):
    with pytest.raises(UserError, match="no method"):
        api.chosen_methods(methods, text)


OPTIONS = Options(device="cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield load_datasets([write_plugin(folder / "tiny_set.py", DATASET)])["tiny"]


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def put(dataset, methods, store):
    """Store a made-up record of a method."""

    def put(name, ratio=0.5, seed=0, mask_seed=None, changed=None, **options):
        study = Study(dataset, Options(**{"device": "cpu", **options}))
        job = study.job(methods[name], ratio, seed, seed if mask_seed is None else mask_seed, changed or {})
        return store.write(finished(job.cell), {})

    return put


@pytest.fixture
def ask(dataset, methods, store, monkeypatch):
    """Compare without training (which would be a mistake), and give the result."""
    monkeypatch.setattr(
        "mlrpl_bench.training.launchers.sweep._train_together", lambda *_: pytest.fail("something is trained")
    )

    def ask(
        *names,
        ratios=(0.5,),
        seeds=((0, 0),),
        options=OPTIONS,
        dry_run=False,
        no_train=True,
        on_trained=lambda: None,
        **details,
    ):
        request = Request([(methods[name], {}) for name in names], ratios, seeds, **details)
        return compare(
            request, dataset, options, methods, store, dry_run=dry_run, no_train=no_train, on_trained=on_trained
        )

    return ask


def labels(result) -> set[str]:
    """The rows that have a number; one that was asked for and has none is shown too."""
    rows = result.leaderboard.to_json()["rows"]
    return {label for label, facts in rows.items() if any(entry["seeds"] for entry in facts.values())}


def test_other_methods_of_the_same_setting_stand_beside(put, ask):
    put("basic"), put("shown"), put("both")
    assert labels(ask("basic")) == {"basic", "shown", "both"}


def test_other_methods_stay_out_if_only_the_asked_ones_are_wanted(put, ask):
    put("basic"), put("shown"), put("both")
    assert labels(ask("basic", "both", only_these_rows=True)) == {"basic", "both"}


@pytest.mark.parametrize(
    "other", [{"epochs": 5}, {"precision": "bf16-mixed"}, {"backbone": "resnet18", "weights": "random"}]
)
def test_records_of_another_setting_never_appear(put, ask, other):
    put("basic"), put("basic", **other), put("shown", **other)
    result = ask("basic", "shown")
    assert labels(result) == {"basic"}
    assert result.leaderboard.to_json()["rows"]["basic"]["50 %"]["seeds"] == 1


def test_only_the_ratios_and_seeds_that_are_asked_for_are_shown(put, ask):
    put("basic"), put("basic", ratio=0.9), put("basic", seed=1), put("shown", seed=1), put("both", mask_seed=4)
    result = ask("basic")
    assert labels(result) == {"basic"}
    assert result.leaderboard.main.columns[0] == "50 %"
    assert result.leaderboard.to_json()["rows"]["basic"]["50 %"]["seeds"] == 1


def test_a_mask_that_is_held_fixed_is_another_table(put, ask):
    put("basic", seed=1), put("shown", seed=1, mask_seed=0)
    assert labels(ask("basic", "shown", seeds=[(1, 0)])) == {"shown"}


def test_when_everything_is_there_nothing_is_trained(put, ask):
    put("basic")
    assert labels(ask("basic", no_train=False)) == {"basic"}


def test_records_are_read_after_training_is_said_to_be_over(put, ask):
    put("basic")
    assert labels(ask("basic", on_trained=lambda: put("shown"))) == {"basic", "shown"}


@pytest.mark.parametrize("other", [{"epochs": 5}, {"ratio": 0.9}, {"seed": 1}])
def test_without_records_of_what_is_asked_and_without_training_there_is_no_table(put, ask, store, other):
    put("basic", **other)
    before = contents(store.root)
    with pytest.raises(
        UserError, match=r"no records of this setting in .*tiny.*; train some first, without --no-train"
    ):
        ask("basic", leaderboard=True)
    assert contents(store.root) == before


def test_the_files_are_what_is_shown(put, ask, store):
    put("basic"), put("shown", ratio=0.9)
    result = ask("basic", ratios=(0.5, 0.9), leaderboard=True)
    files = {path.name: path.read_text(encoding="utf-8") for path in result.written if path.suffix != ".png"}
    folder = store.root / "tiny"
    assert {path.parent for path in result.written} == {folder, folder / "figures"}
    assert "<!doctype html>" in files["index.html"].lower() and files["map-by-ratio.svg"].startswith("<?xml")
    assert files["leaderboard.csv"] == result.leaderboard.to_csv()
    assert files["leaderboard.md"] == result.leaderboard.to_markdown()
    assert files["leaderboard.tex"] == result.leaderboard.to_latex()
    assert files["measurements.csv"] == result.leaderboard.tidy_csv()


def test_the_files_that_were_deleted_come_back_byte_for_byte(put, ask, store):
    put("basic"), put("shown")
    ask("basic", leaderboard=True)
    before = contents(store.root)
    for path in [*(store.root / "tiny").glob("*.*"), *store.root.glob("tiny/*/*/evidence.npz")]:
        path.unlink()
    ask("basic", leaderboard=True)
    assert contents(store.root) == before


def test_nothing_is_written_unless_it_is_asked_for(put, ask, store):
    put("basic")
    before = set(contents(store.root))
    assert ask("basic").written == []
    assert {Path(name).name for name in set(contents(store.root)) - before} == {"evidence.npz"}


def test_a_dry_run_says_what_is_missing_and_how_much_disk_its_scores_take(put, ask, store):
    put("basic")
    before = contents(store.root)
    plan = ask("basic", "shown", ratios=(0.5, 0.9), dry_run=True, no_train=False).plan
    missing = ["basic 90 % seed 0", "shown 50 % seed 0", "shown 90 % seed 0"]
    # 12 training and 8 test images, 4 categories, 4 bytes each
    trainings = [{"methods": ["basic", "shown"], "learning_rate": 0.001, "steps_per_epoch": 3, "steps": 6}]
    expected = {"cells": 4, "to_train": missing, "score_bytes": 3 * 20 * 4 * 4, "trainings": trainings}
    assert plan.to_json() == expected
    assert "a cell: learning rate 0.001, 3 steps an epoch, 6 in all (papers' on COCO: 102,600)" in plan.to_text()
    assert plan.to_text().split("\n")[:2] == ["4 cells, 3 of them without a record:", "  basic 90 % seed 0"]
    assert json.loads(json.dumps(plan.to_json())) == plan.to_json()
    assert contents(store.root) == before


@pytest.mark.parametrize("damage", ["cut short", "NaN", "scores of other images", "unlike its scores"])
def test_a_damaged_record_is_named_and_the_rest_of_the_table_is_made(put, ask, damage):
    put("basic")
    folder = put("shown").folder
    record = json.loads((folder / "record.json").read_text())
    if damage == "NaN":
        record["metrics"]["mAP"] = None
    elif damage == "unlike its scores":
        record["metrics"]["mAP"] = 0.123
    elif damage == "scores of other images":
        np.savez(folder / "scores.npz", scores=np.zeros((7, 4), dtype=np.float32))
        record["files"]["scores.npz"]["bytes"] = (folder / "scores.npz").stat().st_size
    text = json.dumps(record)
    (folder / "record.json").write_text(text[: len(text) // 2] if damage == "cut short" else text)
    result = ask("basic", "shown", leaderboard=True)
    (problem,) = result.problems
    assert str(folder) in problem
    assert labels(result) == {"basic"}
    assert result.leaderboard.to_json()["rows"]["shown"]["50 %"]["mean"] is None
    assert "damaged" in result.leaderboard.to_json()["rows"]["shown"]["50 %"]["status"]


def test_a_damaged_record_that_is_asked_for_is_moved_aside_and_its_cell_is_trained_anew(
    put, methods, dataset, store, monkeypatch
):
    folder = put("shown").folder
    (folder / "record.json").write_text("{")
    damaged = contents(folder)
    trained = []
    monkeypatch.setattr("mlrpl_bench.training.launchers.sweep.run", lambda todo, *_: trained.extend(todo) or iter(()))
    with pytest.raises(UserError, match="no records"):
        compare(Request([(methods["shown"], {})], (0.5,), [(0, 0)]), dataset, OPTIONS, methods, store)
    assert [job.cell.method for job in trained] == ["shown"]
    assert contents(folder.with_name(folder.name + ".damaged-1")) == damaged
    assert not folder.exists()


def test_records_that_do_not_belong_into_the_table_are_counted_by_reason(put, ask, store, methods):
    put("basic"), put("basic", epochs=5), put("shown", epochs=5)
    gone = put("both").folder
    content = json.loads((gone / "record.json").read_text())
    del methods.entries["both"]
    try:
        notes = ask("basic").leaderboard.notes
    finally:
        content = load_methods(folder=next(iter(methods.entries.values())).path.parent)
        methods.entries["both"] = content["both"]
    assert any(
        note.startswith("left out: 2 records of another setting (epochs 5 instead of 2): basic/0.5-s0-")
        for note in notes
    )
    assert any(note.startswith("left out: 1 record of a method that is not registered") for note in notes)


def test_folders_of_two_machines_make_one_table(put, ask, store, methods, dataset, tmp_path):
    put("basic"), put("shown")
    other = tmp_path / "other"
    store.root.rename(other)
    put("both"), put("basic")
    both = ResultStore(store.root, [other])
    request = Request([(methods["basic"], {})], (0.5,), [(0, 0)])
    result = compare(request, dataset, OPTIONS, methods, both, no_train=True)
    assert (labels(result), result.problems) == ({"basic", "shown", "both"}, [])


def test_cells_of_two_folders_that_disagree_are_named_and_neither_is_used(put, ask, store, methods, dataset, tmp_path):
    put("shown")
    path = put("basic").folder / "record.json"
    other = tmp_path / "other"
    store.root.rename(other)
    copied = other / path.relative_to(store.root)
    content = json.loads(copied.read_text())
    content["metrics"]["OF1"] = 0.123
    copied.write_text(json.dumps(content))
    put("basic")
    both = ResultStore(store.root, [other])
    request = Request([(methods["basic"], {})], (0.5,), [(0, 0)])
    result = compare(request, dataset, OPTIONS, methods, both, no_train=True)
    assert "are of one cell and disagree" in result.problems[0]
    assert labels(result) == {"shown"}
    assert result.leaderboard.to_json()["rows"]["basic"]["50 %"]["mean"] is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, ""),
        ({"epochs": 2}, ""),  # the preset's
        ({"epochs": 5, "evaluate_on": "val"}, "val-epochs=5"),
        ({"mask_scheme": "by_id", "image_backend": "fast"}, "by_id-fast"),
        ({"data": {"year": "2017"}}, "year=2017"),
        ({"weights": "/a/b c.pth"}, "weights=b_c"),
    ],
)
def test_tables_of_another_setting_have_another_name(options, name):
    preset = Preset(32, "small", epochs=2)
    assert api.variant(Options(**options), preset) == name


def test_the_notes_tell_how_the_shown_methods_and_the_setting_differ(put, ask, methods):
    put("basic")
    text = "\n".join(ask("basic").leaderboard.notes)
    assert "this setting is not the papers': backbone small (papers: resnet101)" in text
