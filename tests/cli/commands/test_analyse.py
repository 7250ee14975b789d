"""compare, claims and analyse as a user meets them, on made-up records."""

import json

import numpy as np
import pytest

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records import store as store_module
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers.command import in_folder
from tests.helpers.tiny_study import DATASET, METHOD, finished, write_plugin


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Two methods and two of the papers' with records of three seeds, and the commands to look at them."""
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    plugins = [write_plugin(tmp_path / "set.py", DATASET)]
    plugins += [
        write_plugin(tmp_path / f"{name}.py", METHOD.replace('"plain"', f'"{name}"')) for name in ("good", "bad")
    ]
    methods, study = load_methods(plugins[1:]), Study(load_datasets(plugins[:1])["tiny"], Options(device="cpu"))
    store = ResultStore(tmp_path / "results")
    for name, skill in {"good": 4.0, "bad": 0.0, "sarb": 4.0, "kggr": 0.0}.items():
        for seed in range(3):
            for ratio in (0.5, 0.9):
                random = np.random.default_rng([seed, int(10 * ratio)])
                scores_NC = (skill * study.test.labels_NC + random.normal(size=(8, 4))).astype(np.float32)
                measured = metrics.evaluate(scores_NC, study.test.labels_NC)
                cell = study.job(methods[name], ratio, seed, seed, {}).cell
                store.write(finished(cell, scores_NC=scores_NC, metrics=measured, best_metrics=measured), {})

    return in_folder(monkeypatch, tmp_path, "--dataset=tiny", *(f"--plugin={path}" for path in plugins))


@pytest.fixture
def bench_alone(bench, tmp_path, monkeypatch):
    """The same records, and commands that are of no single data set."""
    return in_folder(monkeypatch, tmp_path, *(f"--plugin={tmp_path / name}.py" for name in ("set", "good", "bad")))


def test_two_methods_are_compared_at_each_ratio_and_on_average(bench):
    code, out, err = bench("compare", "good", "bad")
    assert (code, "Traceback" in err) == (0, False)
    lines = [line for line in out.split("\n") if "│ mAP" in line]
    assert [line.split("│")[2].strip() for line in lines] == ["0.5", "0.9", "avg of 2"]
    assert "good less bad in percent points" in out


def test_a_comparison_as_json_has_the_same_numbers(bench):
    rows = json.loads(bench("compare", "good", "bad", "--json")[1])["rows"]
    first = rows[0]
    assert first["difference"] == pytest.approx(first["mean_a"] - first["mean_b"])
    assert first["seeds"] == 3


def test_the_claims_are_judged_from_the_rows_there_are_and_written(bench, tmp_path):
    code, out, err = bench("claims")
    assert code == 0
    assert "sarb - kggr, mAP, avg of 2" in out
    assert "no records" in out  # of plrb and the others
    assert "Head beside training" in out and "without records at 50 and 90 %: ssgrl (run ssgrl)" in out
    assert "\n## Head beside training\n" in (tmp_path / "results/tiny/claims.md").read_text(encoding="utf-8")
    assert (tmp_path / "results/tiny/claims.md").read_text(encoding="utf-8").startswith("# The papers' claims on tiny")
    assert "wrote results/tiny/claims.md" in err


def test_claims_beside_records_that_are_read_only_are_printed(bench, tmp_path, monkeypatch):
    def refuse(path, content):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(store_module, "write_atomically", refuse)
    code, out, err = bench("claims")
    assert code == 0 and "sarb - kggr, mAP, avg of 2" in out
    assert err.startswith("only printed: ") and "Read-only file system" in err
    assert not (tmp_path / "results/tiny/claims.md").exists()


def test_claims_of_another_setting_do_not_overwrite_those_of_the_usual_one(bench, tmp_path):
    bench("claims")
    usual = (tmp_path / "results/tiny/claims.md").read_bytes()
    methods, datasets = load_methods(), load_datasets([tmp_path / "set.py"])
    study, store = Study(datasets["tiny"], Options(device="cpu", epochs=1)), ResultStore(tmp_path / "results")
    store.write(finished(study.job(methods["sarb"], 0.5, 0, 0, {}).cell), {})
    code, _, err = bench("claims", "--epochs=1")
    assert code == 0 and "wrote results/tiny/claims-epochs=1.md" in err
    assert (tmp_path / "results/tiny/claims-epochs=1.md").read_bytes() != usual
    assert (tmp_path / "results/tiny/claims.md").read_bytes() == usual


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("compare", "good", "gud"), "no records of 'gud'"),
        (("compare", "good", "good"), "is to be compared with itself"),
        (("compare", "x", "y"), "no records of these methods and of this setting"),
        (("claims", "--epochs=9"), "no records of these methods and of this setting"),
        (("claims", "--ratios=2"), "known ratio 2 is outside"),
    ],
)
def test_bad_input_is_one_line(bench, arguments, line):
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    (error,) = [each for each in err.strip().split("\n") if each.startswith("error: ")]
    assert line in error


def test_a_damaged_record_is_named_and_the_rest_is_compared(bench, tmp_path):
    (path,) = (tmp_path / "results/tiny/good").glob("0.5-s0-*")
    (path / "record.json").write_text("{")
    _, out, err = bench("compare", "good", "bad")
    assert "not used: " in err and path.name in err
    assert "left out, 0.5 mAP" in out


def test_ensembles_are_printed_and_written_beside_the_tables(bench, tmp_path):
    code, out, err = bench("analyse", "ensembles", "bad", "good", "--ratios=0.5")
    assert code == 0 and "More than a second seed of bad?" in out and "bad + good less bad x 2" in out
    names = [f"results/tiny/analysis-ensembles.{ending}" for ending in ("md", "csv", "json")]
    assert f"wrote {', '.join(names)}" in err and all((tmp_path / name).is_file() for name in names)


def test_an_analysis_as_json_goes_to_another_folder(bench, tmp_path):
    code, out, _ = bench("analyse", "categories", "good", "bad", "--json", f"--out={tmp_path / 'there'}")
    assert code == 0 and {row["method"] for row in json.loads(out)["rows"]} == {"good", "bad"}
    assert (tmp_path / "there/analysis-categories.md").is_file()
    assert not list((tmp_path / "results").rglob("analysis-*"))


def test_costs_have_a_picture_and_a_place_that_is_no_folder_is_said(bench, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = bench("analyse", "cost", f"--out={tmp_path / 'file'}")
    assert code == 0 and "Cost against mAP, unknown device" in out and err.startswith("only printed: ")
    _, _, err = bench("analyse", "cost")
    assert (tmp_path / "results/tiny/analysis-cost.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("ensembles", "good", "goood"), "did you mean 'good'?"),
        (("ensembles",), "Missing argument 'ROW'"),
        (("categories", "good"), "needs two rows or more"),
        (("cost", "--ratios=0.7"), "no records of these methods and of this setting"),
        (("ranked",), "No such command 'ranked'"),
    ],
)
def test_bad_input_of_analyse_is_one_line(bench, arguments, line):
    code, out, err = bench("analyse", *arguments)
    assert (code, out) == (2, "")
    (error,) = [each for each in err.strip().split("\n") if each.startswith("error: ")]
    assert line in error


def test_ranks_take_all_data_sets_of_a_folder(bench_alone, tmp_path):
    code, out, err = bench_alone("analyse", "ranks", "good", "bad", "--json")
    assert code == 0 and {row["method"] for row in json.loads(out)["rows"]} == {"good", "bad"}
    assert "wrote results/analysis-ranks.md" in err
    assert bench_alone("analyse", "ranks", "--datasets=tiny,nowhere")[2].startswith(
        "error: no records of data set 'now"
    )
