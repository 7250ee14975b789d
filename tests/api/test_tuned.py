"""The file of tuned values: what it belongs to, what it says, and what is refused."""

import json

import pytest

from mlrpl_bench.api import tuned
from mlrpl_bench.api.tuned import Choice, Edge, Tuned
from mlrpl_bench.models.registry import load_methods
from tests.helpers.tiny_study import WEIGHTED, refusal, study, write_plugin

CHOICE = {
    "values": {"lr": 3.0, "alpha": 0.25},
    "mAP": 0.6,
    "ratios": [0.5],
    "seed": 0,
    "edges": {"lr": {"values": [0.3, 1.0, 3.0], "edge": "highest", "steps": 0}},
    "source_digest": "d",
    "trials": [{}, {}, {}],
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A study and the methods."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    methods = load_methods(
        [write_plugin(tmp_path / "plain.py", WEIGHTED.replace('"weighted"', '"plain"'))], folder=tmp_path / "none"
    )
    return study(tmp_path / "set.py"), methods


@pytest.fixture
def put(world, tmp_path):
    """Write a file with these choices, of the study's setting unless another one is given."""

    def put(choices, setting=None):
        path = tmp_path / "tuned.json"
        facts = tuned.facts_of(world[0]) if setting is None else setting
        path.write_text(json.dumps({"dataset": "tiny", "setting": facts, "methods": choices}))
        return path

    return put


@pytest.mark.parametrize(
    ("value", "edge"),
    [
        (0.3, Edge([0.3, 1, 3, 10], "lowest", 0)),
        (1, Edge([0.3, 1, 3, 10], "lowest", 1)),
        (3, Edge([0.3, 1, 3, 10], "highest", 1)),
        (10, Edge([0.3, 1, 3, 10], "highest", 0)),
    ],
)
def test_an_edge_is_the_nearer_end_of_the_list_and_how_many_values_are_beyond(value, edge):
    assert Edge.find(value, [3, 0.3, 10, 1]) == edge


def test_a_list_of_one_value_has_no_edge():
    assert Edge.find(1, [1, 1]) is None


def test_the_file_is_read_as_it_was_written(world, put):
    choice = tuned.read(put({"plain": CHOICE}), *world).choices["plain"]
    assert (choice.values, choice.mAP, choice.trials, choice.ratios) == ({"lr": 3.0, "alpha": 0.25}, 0.6, 3, [0.5])
    assert choice.budget == "3 trials at 50 % known, seed 0"
    assert choice.warnings() == ["lr=3 is at the edge, the highest of 0.3, 1, 3; a longer list may hold a better one"]


def test_a_value_inside_its_list_is_no_cause_for_a_warning():
    edges = {"lr": {"values": [0.3, 1.0, 3.0, 10.0], "edge": "highest", "steps": 1}}
    choice = Choice.from_json({**CHOICE, "edges": edges})
    assert choice.warnings() == []
    assert choice.places() == ["lr=3 is not at the edge: 1 value of 0.3, 1, 3, 10 lies beyond it"]


def test_the_setting_does_not_depend_on_which_images_are_evaluated(world, tmp_path):
    here, validation = world[0], study(tmp_path / "set.py", evaluate_on="val")
    assert here.setting.fingerprint != validation.setting.fingerprint
    assert tuned.facts_of(here) == tuned.facts_of(validation)
    assert tuned.file_name(here) == tuned.file_name(validation) == "tuned.json"


def test_another_setting_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    assert tuned.file_name(study(tmp_path / "set.py", epochs=5, evaluate_on="val")) == "tuned-epochs=5.json"


def test_notes_say_what_each_row_is_by_what_budget_and_what_to_doubt(tmp_path):
    choice = Choice.from_json(CHOICE)
    more = Choice.from_json({**CHOICE, "trials": [{}] * 9, "edges": {}})
    found = Tuned(tmp_path, {"a": choice, "b": choice, "c": more})
    labels = {"a": "a[lr=3, alpha=0.25]", "b": "b[lr=3]"}
    lines = found.notes(labels, {"a": "d", "b": "edited"}, "test")
    assert lines[0] == (
        "tuned by mAP on validation images, 3 trials at 50 % known, seed 0: a (tuned) is a[lr=3, alpha=0.25], "
        "b (tuned) is b[lr=3]"
    )
    assert lines[1].startswith("a (tuned), b (tuned): lr=3 is at the edge")
    assert lines[2:] == ["b (tuned) was tuned before its file was edited; tune it again"]
    both = found.notes({"a": "a[lr=3]", "c": "c[lr=3]"}, {"a": "d", "c": "d"}, "val")
    assert "the tuned rows had different budgets, so they are not compared on equal terms" in both
    assert "look too good" in both[-1]
    inside = {"values": [1.0, 3.0, 10.0], "edge": "highest", "steps": 1}
    other = Choice.from_json({**CHOICE, "edges": {"lr": inside}})
    lines = Tuned(tmp_path, {"a": choice, "d": other}).notes(
        {"a": "a[lr=3]", "d": "d[lr=3]"}, {"a": "d", "d": "d"}, "test"
    )
    assert "the tuned rows had different lists of rates, so they are not compared on equal terms" in lines
    assert "d (tuned): lr=3 is not at the edge: 1 value of 1, 3, 10 lies beyond it" in lines


def test_a_file_that_is_not_there_is_refused_with_what_to_do(world, tmp_path):
    line = refusal(lambda: tuned.read(tmp_path / "tuned.json", *world))
    assert "there is no" in line and "tune first, or name another file with --tuned-file" in line


def test_a_file_of_another_setting_is_refused_with_what_differs(world, put):
    facts = tuned.facts_of(world[0])
    path = put({"plain": CHOICE}, {**facts, "epochs": 7, "lr": 3.0})
    line = refusal(lambda: tuned.read(path, *world))
    assert "was tuned under another setting (epochs 7 instead of 2, lr 3.0 instead of 100)" in line
    assert "move it away, or name another file with --out" in refusal(lambda: tuned.methods_in(path, world[0]))


def test_trials_in_another_precision_are_taken_and_the_table_says_so(world, put):
    path = put({"plain": CHOICE}, {**tuned.facts_of(world[0]), "precision": "bf16-mixed"})
    lines = tuned.read(path, *world).notes({"plain": "plain[lr=3]"}, {"plain": "d"}, "test")
    assert lines[1] == "the trials were trained in bf16-mixed, other than the rows"
    assert "precision bf16-mixed instead of 32-true" in refusal(lambda: tuned.methods_in(path, world[0]))


def test_trials_whose_precision_is_not_known_are_refused(world, put):
    facts = {name: fact for name, fact in tuned.facts_of(world[0]).items() if name != "precision"}
    line = refusal(lambda: tuned.read(put({"plain": CHOICE}, facts), *world))
    assert "was tuned under another setting (precision None instead of 32-true)" in line


@pytest.mark.parametrize("trials", [None, 3, [{}], [{"values": 1}], ["lr"]])
def test_trials_that_tune_did_not_write_are_refused(tmp_path, trials):
    assert tuned.trials_in(tmp_path, {"trials": [{"values": {"lr": 3.0}, "mAP": 0.5}]}) == [{"lr": 3.0}]
    line = refusal(lambda: tuned.trials_in(tmp_path / "t.json", {"trials": trials}))
    assert line.startswith(f"{tmp_path / 't.json'} is no file that tune wrote")


def test_an_unknown_method_is_refused_and_named(world, put):
    line = refusal(lambda: tuned.read(put({"gone": CHOICE}), *world))
    assert "has values of gone, which is no method here; name its file with --plugin" in line


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": 0}, "plain: lr=0 is not valid"),
        ({"lr": -1.0}, "plain: lr=-1.0 is not valid"),
        ({"lr": "fast"}, "plain: lr=fast is not valid"),
        ({"lr": True}, "plain: lr=True is not valid"),
        ({"lr": None}, "plain: lr=None is not valid"),
        ({"alpha": 7}, "alpha=7 is not valid"),
        ({"beta": 7}, "plain has no hyper-parameter 'beta'"),
    ],
)
def test_values_that_the_method_does_not_take_are_refused(world, put, values, words):
    path = put({"plain": {**CHOICE, "values": values, "edges": {}}})
    line = refusal(lambda: tuned.read(path, *world))
    assert str(path) in line and words in line


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\x00"])
def test_what_is_no_such_file_is_refused(world, tmp_path, text):
    path = tmp_path / "tuned.json"
    path.write_text(text)
    for action in (lambda: tuned.read(path, *world), lambda: tuned.methods_in(path, world[0])):
        assert "is no file that tune wrote" in refusal(action)


@pytest.mark.parametrize(
    "change",
    [
        {"trials": []},
        {"trials": 3},
        {"mAP": None},
        {"mAP": "high"},
        {"ratios": []},
        {"values": 3},
        {"edges": []},
        {"edges": {"lr": 3}},
        {"edges": {"lr": {"values": ["x"], "edge": "lowest", "steps": 0}}},
        {"edges": {"gone": {"values": [1, 2], "edge": "lowest", "steps": 0}}},
        {"seed": "x"},
    ],
)
def test_a_choice_that_is_none_is_refused(world, put, change):
    path = put({"plain": {**CHOICE, **change}})
    assert "is no file that tune wrote" in refusal(lambda: tuned.read(path, *world))
    assert "is no file that tune wrote" in refusal(lambda: tuned.read(put([CHOICE]), *world))


def test_a_file_without_a_setting_is_of_none(world, put):
    assert "it says nothing of it" in refusal(lambda: tuned.read(put({}, 3), *world))
