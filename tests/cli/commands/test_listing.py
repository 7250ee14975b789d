"""What ``list`` says of methods, datasets and cells."""

import json

import pytest

from mlrpl_bench.cli.commands import listing
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint
from tests.helpers.tiny_study import DATASET, METHOD, cell, finished, write_plugin

CHANGED = cell(method="plain", hyperparameters={"alpha": 0.3}, changed=("alpha",), seed=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Methods, datasets and a store with two cells."""
    folder = tmp_path_factory.mktemp("listing")
    plugins = [write_plugin(folder / "mine.py", METHOD), write_plugin(folder / "tiny_set.py", DATASET)]
    store = ResultStore(folder / "results")
    for one in (cell(), CHANGED):
        store.write(finished(one), {})
    return load_methods(plugins), load_datasets(plugins), store


def rows(world, kind: str, verbose: bool = False) -> dict[str, dict]:
    """By name."""
    return {row.get("name") or row["cell"]: row for row in listing.KINDS[kind](*world, verbose)}


def test_every_method_has_a_row_with_its_files_first_line(world):
    found = rows(world, "methods")
    assert list(found) == [*world[0], *world[0].aliases, *(f"METHOD+{name}" for name in sorted(world[0].steps))]
    about = {"name": "plain", "idea": "One linear layer on the mean position.", "default": ""}
    assert found["plain"] == {**about, "trained": "2 tiny"}
    assert found["sarb"]["trained"] == ""


def test_a_cell_in_two_folders_of_records_is_counted_once(world):
    store = ResultStore(world[2].root, [world[2].root])
    assert {row["name"]: row for row in listing.methods(*world[:2], store, False)}["plain"]["trained"] == "2 tiny"


def test_methods_that_are_trained_by_default_are_marked(world):
    marked = {name for name, row in rows(world, "methods").items() if row["default"]}
    assert marked == {name for name in world[0] if world[0][name].default}


def test_verbose_methods_have_paper_differences_hyper_parameters_and_file(world):
    plain = rows(world, "methods", verbose=True)["plain"]
    assert (plain["paper"], plain["differs"]) == ("https://example.org/plain", "shorter")
    assert (plain["hyper-parameters"], plain["set to"]) == ("it has none", "")
    assert plain["file"].endswith("mine.py")


def test_a_verbose_ablation_says_what_it_is_set_to(world):
    methods = world[0]
    found = rows(world, "methods", verbose=True)
    (name, entry) = next((name, methods[name]) for name in methods if methods[name].settings)
    assert found[name]["set to"] == ", ".join(f"{key}={value}" for key, value in entry.settings.items())


def test_every_dataset_has_a_row_that_says_whether_it_needs_a_folder(world):
    found = rows(world, "datasets")
    assert list(found) == list(world[1])
    about = "Twenty pictures of squares, drawn on first use."
    assert found["tiny"] == {"name": "tiny", "about": about, "needs --data-root": "no", "trained": "2"}
    assert found["coco"]["trained"] == ""


def test_what_a_dataset_is_does_not_end_within_a_sentence(world):
    about = {name: row["about"] for name, row in rows(world, "datasets").items()}
    assert {name: text for name, text in about.items() if not text.endswith(".")} == {}
    assert not any("://" in text for text in about.values())
    assert "(Everingham et al., IJCV 2010)." in about["voc2007"]
    assert "https://cocodataset.org" in rows(world, "datasets", verbose=True)["coco"]["about"]


def test_verbose_datasets_have_their_setting(world):
    tiny = rows(world, "datasets", verbose=True)["tiny"]
    assert (tiny["setting"], tiny["ratios"]) == ("small, 32 px, 2 epochs, batch 4", "0.5, 0.9")


def test_every_cell_with_a_record_has_a_row(world):
    found = rows(world, "cells")
    assert set(found) == {"plain 50 % seed 0", "plain[alpha=0.3] 50 % seed 1"}
    mean = 100 * finished(cell()).metrics["mAP"]
    assert found["plain 50 % seed 0"] == {
        "dataset": "tiny",
        "cell": "plain 50 % seed 0",
        "key": cell().key[:8],
        "mAP": f"{mean:.1f}",
        "status": "finished",
    }


def test_verbose_cells_have_time_and_folder(world):
    row = rows(world, "cells", verbose=True)["plain 50 % seed 0"]
    assert (row["seconds"], row["folder"]) == ("2", str(world[2].folder(cell())))


@pytest.mark.parametrize("verbose", [False, True])
def test_cells_that_were_begun_say_where_they_stand(world, tmp_path, verbose):
    store, begun = ResultStore(tmp_path), [cell(seed=seed) for seed in range(4)]
    checkpoint.write(store.folder(begun[0]), begun[0], {"epoch": 1, "step": 2})
    store.write_failure(begun[1], "ValueError: too dark", "")
    store.folder(begun[2]).mkdir()
    store.write(finished(begun[3]), {})
    (tmp_path / "tiny" / "plain" / "mine").mkdir()
    store.write_failure(begun[1], "ValueError: too dark", "").rename(
        tmp_path / "tiny" / "plain" / "mine" / "failed.json"
    )
    rows = listing.cells(*world[:2], store, verbose)
    assert len({tuple(row) for row in rows}) == 1
    assert [(row["cell"], row["key"], row["mAP"], row["status"]) for row in rows[1:]] == [
        ("plain 50 % seed 0", begun[0].key[:8], "", "stopped at epoch 2"),
        ("plain/mine", "", "", "failed: ValueError: too dark"),
    ]
    assert rows[0]["status"] == "finished" and all(row["dataset"] == "tiny" for row in rows)


def test_an_empty_store_has_no_cells(world, tmp_path):
    assert listing.cells(*world[:2], ResultStore(tmp_path / "none"), False) == []


@pytest.mark.parametrize("kind", listing.KINDS)
@pytest.mark.parametrize("verbose", [False, True])
def test_rows_are_plain_text_of_equal_columns(world, kind, verbose):
    found = listing.KINDS[kind](*world, verbose)
    assert len({tuple(row) for row in found}) == 1
    assert all(isinstance(value, str) for row in found for value in row.values())
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("verbose", [False, True])
def test_printed_labels_are_as_they_are(world, verbose, capsys):
    listing.print_table(listing.cells(*world, verbose))
    printed = capsys.readouterr().out
    assert "\nplain[alpha=0.3] 50 % seed 1\n" in printed if verbose else "plain[alpha=0.3] 50 % seed 1" in printed
    assert ("folder: " in printed) == verbose


def test_nothing_to_list_is_said(capsys):
    listing.print_table([])
    assert capsys.readouterr().out == "none\n"
