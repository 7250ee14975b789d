"""Tuning trains a grid on validation images, remembers it, and a leaderboard uses what was chosen."""

import json
import math
from pathlib import Path

import pytest

import mlrpl_bench as mb
from mlrpl_bench.api.actions import tuning
from mlrpl_bench.api.request import Request
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.training.launchers import sweep
from tests.helpers.tiny_study import DATASET, METHOD, WEIGHTED, refusal, write_plugin

FAILS_FAST = METHOD.replace('"plain"', '"fragile"').replace(
    "        return {",
    """        if batch.labels_BC.numel() and max(p.abs().max() for p in self.classifier.parameters()) > 50:
            return {"bce": self.classifier.weight.sum() * float("nan")}
        return {""",
)
"""Its loss is not a number once a weight is large."""


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """The arguments that every function takes here."""
    folder = tmp_path_factory.mktemp("tuning")
    texts = {"tiny_set": DATASET, "plain": METHOD, "weighted": WEIGHTED, "fragile": FAILS_FAST}
    plugins = [write_plugin(folder / f"{name}.py", text) for name, text in texts.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        yield {"dataset": "tiny", "plugins": plugins, "results": folder / "results", "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def found(common):
    """Two methods tuned by three rates."""
    return mb.tune(["plain", "weighted"], rates=[1, 30, 0.01], **common)


def test_every_method_has_the_same_trials_and_the_best_is_chosen(found):
    rates = {name: [trial.values["lr"] for trial in trials] for name, trials in found.trials.items()}
    assert rates == {"plain": [1, 30, 0.01], "weighted": [1, 30, 0.01]}
    for name, trials in found.trials.items():
        assert found.chosen[name].mean == max(trial.mean for trial in trials)
    frame = found.frame()
    assert list(frame[frame.chosen].method) == ["plain", "weighted"] and len(frame) == 6


def test_the_rate_is_what_is_trained_with(found, common):
    records = mb.records(common["results"], "tiny")
    assert set(records.evaluate_on) == {"val"} and set(records.seed) == {0}
    assert {"plain", "plain[lr=30]", "plain[lr=0.01]"} <= set(records.method)
    scores = {trial.label: trial.mAP[0.5] for trial in found.trials["plain"]}
    for label, number in scores.items():
        (record,) = records[records.method == label].itertuples()
        assert record.mAP == pytest.approx(100 * number)
    (slow,) = records[records.method == "plain[lr=0.01]"].folder
    content = json.loads(Path(slow, "record.json").read_text())
    assert content["cell"]["lr_factor"] == 0.01
    assert content["cell"]["recipe"]["lr"] == 1e-5 * (100 * 0.01)


def test_the_file_says_what_was_chosen_from_what(found):
    content = json.loads(found.path.read_text())
    assert found.path.name == "tuned-epochs=1.json" and content == found.content
    plain = content["methods"]["plain"]
    assert plain["values"] == dict(found.chosen["plain"].values) and len(plain["trials"]) == 3
    assert plain["edges"]["lr"]["values"] == [0.01, 1, 30]


def test_the_table_shows_every_trial_and_the_choice(found):
    table = found.table("Tuning")
    assert [label for label, _ in table.rows] == [trial.label for each in found.trials.values() for trial in each]
    marked = [label for label, entries in table.rows if entries[0].mark == "best"]
    assert marked == [found.chosen[name].label for name in ("plain", "weighted")]
    assert any("by 3 trials at 50 % known, seed 0" in note for note in table.notes)


def test_tuning_again_trains_nothing(found, common, monkeypatch):
    monkeypatch.setattr(sweep, "_train_together", lambda *_: pytest.fail("something is trained"))
    assert mb.tune(["plain", "weighted"], rates=[1, 30, 0.01], **common).content == found.content


def test_another_method_is_added_to_the_file(found, common, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(found.path.read_text())
    more = mb.tune(["partial_bce"], rates=[1, 3], out=path, **common)
    assert list(more.content["methods"]) == ["partial_bce", "plain", "weighted"]
    assert more.content["methods"]["plain"] == found.content["methods"]["plain"]
    assert len(more.content["methods"]["partial_bce"]["trials"]) == 2


def test_a_method_that_is_tuned_again_is_tuned_further(found, common, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(found.path.read_text())
    more = mb.tune(["plain"], rates=[3, 30], out=path, **common)
    assert sorted(trial.values["lr"] for trial in more.trials["plain"]) == [0.01, 1, 3, 30]
    assert more.chosen["plain"].mean == max(trial.mean for trial in (*found.trials["plain"], *more.trials["plain"]))
    assert more.content["methods"]["plain"]["edges"]["lr"]["values"] == [0.01, 1, 3, 30]
    alone = mb.tune(["plain"], rates=[10], out=path, **common)  # one rate more is a choice
    assert len(alone.trials["plain"]) == 5


def test_earlier_trials_of_other_values_have_the_usual_ones(common, tmp_path):
    path = tmp_path / "t.json"
    mb.tune(["weighted"], rates=[1, 3], out=path, **common)
    more = mb.tune(["weighted"], rates=[1], values={"alpha": [0.25, 0.5]}, out=path, **common)
    usual = load_methods(common["plugins"])["weighted"].hyperparameters().alpha
    points = {(trial.values["lr"], trial.values["alpha"]) for trial in more.trials["weighted"]}
    assert points == {(1, 0.25), (1, 0.5), (1, usual), (3, usual)}
    fewer = mb.tune(["weighted"], rates=[1, 3], out=path, **common)
    assert {(trial.values["lr"], trial.values["alpha"]) for trial in fewer.trials["weighted"]} == points


@pytest.mark.parametrize("other", [{"seed": 1}, {"ratios": [0.9]}, {"trials": [{"values": {"lr": 7.0}}]}])
def test_earlier_trials_that_cannot_be_compared_do_not_count(found, common, tmp_path, other):
    path = tmp_path / "mine.json"
    content = json.loads(found.path.read_text())
    content["methods"]["plain"] |= other
    path.write_text(json.dumps(content))
    again = mb.tune(["plain"], rates=[1, 30], out=path, **common)
    assert [trial.values["lr"] for trial in again.trials["plain"]] == [1, 30]


def edit(found, path, **values):
    """A copy of the file in which every method has these values."""
    content = json.loads(found.path.read_text())
    for choice in content["methods"].values():
        choice["values"] |= values
    path.write_text(json.dumps(content))
    return path


def test_a_tuned_row_is_told_from_the_untuned_one_beside_it(found, common, tmp_path):
    path = edit(found, tmp_path / "t.json", lr=30.0)
    mb.run("plain", ratios=[0.5], **common)
    result = mb.leaderboard(ratios=[0.5], tuned=path, out=tmp_path / "tables", **common)
    table = result.leaderboard
    assert {"plain", "plain (tuned)", "weighted (tuned)"} <= set(table.labels)
    tuned, usual = (table.cells[label, 0.5][0, 0].record.cell for label in ("plain (tuned)", "plain"))
    assert tuned.recipe.lr == 1e-5 * (100 * 30.0) and usual.recipe.lr == 1e-5 * 100
    notes = "\n".join(table.notes)
    assert "3 trials at 50 % known, seed 0: plain (tuned) is plain[lr=30]" in notes
    assert "not tuned: plain\n" in f"{notes}\n"
    assert "leaderboard-epochs=1-tuned.csv" in {written.name for written in result.written}


def test_what_was_trained_as_a_tuned_row_is_another_row_elsewhere(found, common, tmp_path):
    path = edit(found, tmp_path / "t.json", lr=30.0)
    mb.run("plain", ratios=[0.5], tuned=path, **common)
    mb.run("plain", ratios=[0.5], **common)
    beside = mb.leaderboard(ratios=[0.5], train=False, methods=None, out=tmp_path / "tables", **common).leaderboard
    assert {"plain", "plain[lr=30]"} <= set(beside.labels) and "plain (tuned)" not in beside.labels
    compared = mb.compare("plain[lr=30]", "plain", ratios=[0.5], **common)
    assert compared.to_json()["rows"]


def test_a_rate_of_a_row_and_a_rate_of_a_setting_are_one_cell(found, common, tmp_path, monkeypatch):
    mb.run("plain", ratios=[0.5], overrides={"lr": 30}, **common)
    monkeypatch.setattr(sweep, "_train_together", lambda *_: pytest.fail("something is trained"))
    whole = mb.run("plain", ratios=[0.5], lr_multiplier=3000.0, **common)
    assert "plain" in whole.leaderboard.labels and "plain[lr=30]" not in whole.leaderboard.labels


def test_values_of_hyper_parameters_are_tried_with_every_rate(common, tmp_path):
    found = mb.tune(["weighted"], rates=[1, 3], values={"alpha": [0.25, "0.5"]}, out=tmp_path / "t.json", **common)
    points = [dict(trial.values) for trial in found.trials["weighted"]]
    assert points == [{"lr": rate, "alpha": alpha} for rate in (1, 3) for alpha in (0.25, 0.5)]
    assert found.trials["weighted"][0].label == "weighted[alpha=0.25]"


def test_the_mean_over_ratios_decides(common, tmp_path):
    found = mb.tune(["plain"], rates=[1, 30], ratios=[0.9, 0.5], out=tmp_path / "t.json", **common)
    trial = found.chosen["plain"]
    assert list(trial.mAP) == [0.5, 0.9] and trial.mean == pytest.approx(sum(trial.mAP.values()) / 2)


def test_a_trial_that_fails_is_no_choice_and_is_said(common, tmp_path):
    found = mb.tune(["fragile"], rates=[1, 1e6], out=tmp_path / "t.json", **common)
    good, bad = found.trials["fragile"]
    assert math.isnan(bad.mean) and "is nan" in bad.problem and found.chosen["fragile"] is good
    assert found.content["methods"]["fragile"]["trials"][1]["mAP"] is None
    nothing = mb.tune(["fragile"], rates=[1e6, 1e5], out=tmp_path / "none.json", **common)
    assert nothing.without_choice == ["fragile"] and not (tmp_path / "none.json").exists()
    assert any("every trial failed" in note for note in nothing.table("t").notes)


def test_one_trial_is_no_choice_and_is_refused(common, monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "_train_together", lambda *_: pytest.fail("something is trained"))
    line = refusal(lambda: mb.tune(["plain", "weighted"], rates=[2], out=tmp_path / "t.json", **common))
    assert line == "with one trial a method nothing is chosen; name two --rates or more, or two --set-values"


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (
            (0.0, -1.0, 1.0),
            "m[lr=3] is as good on 12 validation images; of equal trials the rate nearest to 1 was taken",
        ),
        ((0.5, -1.25, 2.0), "better than m[lr=3] by 0.5 points, 95 % interval -1.2 to 2.0 on 12 validation images"),
        ((0.5, math.nan, math.nan), "inside the noise"),
        ((3.0, 0.5, 5.0), ""),
    ],
)
def test_a_choice_inside_the_noise_is_doubted(measured, words):
    doubt = tuning.RunnerUp("m[lr=3]", *measured, 12).doubt()
    assert words in doubt and bool(doubt) == bool(words)


def test_the_second_trial_is_compared_on_the_validation_images(found):
    for name, best in found.chosen.items():
        others = sorted((trial.mean for trial in found.trials[name] if trial is not best), reverse=True)
        second = found.runners_up[name]
        assert second.difference == pytest.approx(100 * (best.mean - others[0])) and second.images == 1
        written = found.content["methods"][name]["second"]
        assert (written["row"], written["validation_images"]) == (second.label, 1)
        assert written["difference"] == pytest.approx(best.mean - others[0])  # a fraction, as mAP is
    notes = found.table("t").notes
    assert any("1 validation image" in note and note.startswith("plain: ") for note in notes)
    assert all(any(note.startswith(f"{name}: lr=") and "edge" in note for note in notes) for name in found.chosen)


def trial(mean, rate):
    return tuning.Trial("m", {"lr": rate}, f"m[lr={rate}]", {0.5: mean}, "")


def test_of_equal_trials_the_rate_nearest_to_the_methods_own_is_chosen():
    trials = [trial(0.5, 0.1), trial(0.5, 3.0), trial(0.4, 1.0), trial(math.nan, 1.0)]
    assert tuning._best(trials) is trials[1]
    assert tuning._best(trials[3:]) is None


@pytest.mark.parametrize(
    ("rates", "values", "words"),
    [
        ([], {}, "--rates has no value"),
        ([1, 1.0], {}, "--rates has a value twice"),
        ([0], {}, "weighted: lr=0 is not valid"),
        ([-1], {}, "weighted: lr=-1 is not valid"),
        ([float("nan")], {}, "weighted: lr=nan is not valid"),
        ([1], {"alpha": []}, "--set-values alpha= has no value"),
        ([1], {"alpha": [0.5, "0.50"]}, "--set-values alpha= has a value twice"),
        ([1], {"alpha": [2]}, "alpha=2 is not valid, it must be float, 0 to 1"),
        ([1], {"alfa": [0.5]}, "weighted has no hyper-parameter 'alfa' (did you mean 'alpha'?)"),
        ([1], {"lr": [0.5]}, "given with --rates"),
    ],
)
def test_a_grid_that_is_none_is_refused(tmp_path, rates, values, words):
    entry = load_methods([write_plugin(tmp_path / "w.py", WEIGHTED)], folder=tmp_path / "none")["weighted"]
    assert words in refusal(lambda: tuning.grid(entry, rates, values))


def test_the_test_images_are_not_tuned_on(common):
    line = refusal(lambda: mb.tune(["plain"], evaluate_on="test", **common))
    assert "validation images alone" in line


def test_a_file_of_another_setting_is_refused_before_anything_is_trained(found, common, monkeypatch):
    monkeypatch.setattr(sweep, "_train_together", lambda *_: pytest.fail("something is trained"))
    asked = {**common, "epochs": 2, "out": found.path}
    assert "is of another setting (epochs 1 instead of 2)" in refusal(lambda: mb.tune(["plain"], **asked))
    used = {**common, "epochs": 2, "ratios": [0.5], "tuned": found.path}
    assert "was tuned under another setting (epochs 1 instead of 2)" in refusal(lambda: mb.leaderboard(**used))


def test_a_method_that_was_not_tuned_is_refused(found, common):
    line = refusal(lambda: mb.leaderboard(methods=["plain", "ssgrl"], ratios=[0.5], tuned=True, **common))
    assert "has no values of ssgrl; tune them too, or leave them out" in line
    line = refusal(lambda: mb.run("plain", ratios=[0.5], tuned=True, overrides={"lr": 3}, **common))
    assert "leave --set out" in line


def test_the_usual_ratio_is_one_half_unless_the_scheme_has_none():
    assert tuning.with_usual_ratio(Request()).ratios == (0.5,)
    assert tuning.with_usual_ratio(Request(ratios=(0.1,))).ratios == (0.1,)
    for options in ({"mask_scheme": "single_positive"}, {"mask_file": Path("mask.npz")}):
        given = Request(options=mb.Options(**options))
        assert tuning.with_usual_ratio(given) is given
