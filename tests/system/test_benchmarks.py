"""The benchmark scripts run, and say what they promise. Their numbers are not tested."""

import importlib.util
import json
import re
import subprocess
import sys

import pandas as pd
import pytest
import torch

from benchmarks import check
from mlrpl_bench.data.choices import BACKENDS, PREPARED_RAW, REFERENCE
from tests.helpers.places import ROOT


def test_the_data_pipelines_benchmark_measures_every_backend_beside_torchvision(tmp_path, capsys):
    from benchmarks import data_pipeline

    report = tmp_path / "report.json"
    data_pipeline.main(["--num-images=4", "--size=28", "--rounds=1", f"--json={report}"])
    printed = capsys.readouterr().out
    facts = json.loads(report.read_text())
    rows = facts["rows"]
    assert list(facts["ratios"]) == [*(f"torchvision over {name}" for name in BACKENDS), "fast over reduced"]
    assert list(rows) == ["torchvision", *BACKENDS]
    assert all(facts["images_per_s_normalised"] > 0 for facts in rows.values())
    assert [rows[name]["mean_absolute_difference"] == 0 for name in BACKENDS] == [
        name in (REFERENCE, PREPARED_RAW) for name in BACKENDS
    ]
    # 28 pixels: fast decodes such large JPEGs at a smaller size, for the test view too
    assert [rows[name]["mean_absolute_difference_test"] == 0 for name in BACKENDS] == [
        name == REFERENCE for name in BACKENDS
    ]
    assert all(name[:8] in printed for name in rows)


def test_labels_masks_and_the_label_graph_are_timed(tmp_path, capsys):
    from benchmarks import data_pipeline

    report = tmp_path / "report.json"
    data_pipeline.main(["--labels", "--num-labelled=200", f"--json={report}"])
    printed = capsys.readouterr().out
    facts = json.loads(report.read_text())
    steps = ["labels, first reading", "labels, kept", "mask, hcp", "mask, by_id", "label graph"]
    assert list(facts["seconds"]) == steps and facts["images"] == 200 and facts["annotations"] == 1461
    assert all(step in printed for step in steps)


def test_the_leaderboards_benchmark_times_each_part_and_compares_the_bytes(tmp_path, capsys, monkeypatch):
    from benchmarks import leaderboard

    monkeypatch.setenv("MLRPL_CACHE", "set by the benchmark, and afterwards as it was")
    report = tmp_path / "report.json"
    leaderboard.main(["--quick", f"--json={report}"])
    printed = capsys.readouterr().out
    facts = json.loads(report.read_text())
    parts = {"reading records", "reading evidence", "intervals", "paired comparisons", "tables", "writing tables"}
    assert parts <= set(facts["regenerated"]) and all(part in printed for part in parts)
    assert facts["identical"] and {"leaderboard.csv", "measurements.csv"} <= set(facts["bytes_written"])
    assert facts["regenerated"]["peak_gb"] > 0 and facts["cold"]["cells_per_hour"] > 0


def test_the_groups_benchmark_sets_groups_beside_their_floor_and_beside_cells_alone(tmp_path, capsys):
    from benchmarks import groups

    report = tmp_path / "report.json"
    groups.main(["--quick", f"--json={report}"])
    printed = capsys.readouterr().out
    facts = json.loads(report.read_text())
    names = [f"ssgrl x {n}: group / {other}" for other in ("floor", "alone") for n in (1, 2)]
    assert list(facts["ratios"]) == names and all(ratio > 0 for ratio in facts["ratios"].values())
    assert "ssgrl x 2" in printed


def test_the_launchers_benchmark_divides_all_cells_and_counts_what_preemption_costs(tmp_path, capsys):
    from benchmarks import launchers

    report = tmp_path / "report.json"
    launchers.main(["--json", str(report)])
    facts = json.loads(report.read_text())
    assert facts["cells"] == len(launchers.recorded()) * 9 * 5 >= 1440
    assert all(1 <= end["planned"] <= end["largest"] for end in facts["ends"].values())
    assert facts["ratios"]["preempted, checkpoints every 3 minutes"] > 1
    assert "64 workers" in capsys.readouterr().out
    assert facts == json.loads((check.RESULTS / "launchers.json").read_text())


def test_what_is_trained_between_preemptions_is_kept_from_the_last_checkpoint_on(monkeypatch):
    from benchmarks import launchers

    monkeypatch.setattr(launchers.random.Random, "expovariate", lambda draw, rate: 25.0)
    assert launchers.preempted(10, hours=1) == pytest.approx((25 + 2 + 25 + 2 + 20) / 60)
    monkeypatch.setattr(launchers.random.Random, "expovariate", lambda draw, rate: 100.0)
    assert launchers.preempted(10, hours=1) == 1


def test_a_group_costs_the_shared_part_once_and_workers_take_the_next_that_is_left():
    from benchmarks import launchers

    assert launchers.time_of([launchers.Cost(2, 1), launchers.Cost(3, 4)]) == 8
    assert launchers.last_end([4, 1, 1, 3], 2) == 5


def test_a_launchers_start_up_is_told_from_training_and_that_is_set_beside_half_of_one_process(
    tmp_path, monkeypatch, capsys
):
    from benchmarks import launchers

    start_up_and_epoch = {launchers.ONE: (5, 4), launchers.TWO_THREADS: (5, 3), launchers.LOCAL: (9, 2.5)}

    def seconds(grid, options, epochs, threads):
        (name,) = (name for name in start_up_and_epoch if launchers.STARTED[name] == (options, threads))
        start_up, epoch = start_up_and_epoch[name]
        return start_up + epochs * epoch

    monkeypatch.setattr(launchers.Grid, "seconds", seconds)
    report = tmp_path / "report.json"
    launchers.main(["--grid", "--epochs=11", "--json", str(report)])
    facts = json.loads(report.read_text())
    assert facts["rows"][launchers.LOCAL] == {"seconds": 36.5, "start_up": 9, "training": 27.5}
    assert facts["ratios"] == {"local, two workers: training over ideal": 1.25}
    assert facts["command"] == ["-m", "benchmarks.launchers", "--grid", "--epochs=11", "--rounds=2"]
    assert "local, two workers: 36.5 s, of which start-up 9.0 s" in capsys.readouterr().out


@pytest.mark.slow
def test_a_grid_is_measured_with_each_launcher_that_is_there(tmp_path):
    report = tmp_path / "report.json"
    ray = ["--ray"] if importlib.util.find_spec("ray") else []
    command = [sys.executable, "-m", "benchmarks.launchers", "--grid", "--quick", *ray, "--json", report]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    rows = json.loads(report.read_text())["rows"]
    assert len(rows) == 3 + len(ray) and all(row["seconds"] > 0 for row in rows.values())


def test_the_metrics_benchmark_measures_the_floor_in_the_same_run_and_loops_agree(tmp_path, capsys):
    from benchmarks import metrics

    report = tmp_path / "report.json"
    metrics.main(["--images=300", "--categories=5", "--rounds=1", f"--json={report}"])
    printed = capsys.readouterr().out
    facts = json.loads(report.read_text())
    assert list(facts["ratios"]) == ["metrics over argsort"] and all(value > 0 for value in facts["seconds"].values())
    assert "argsort" in printed and facts["command"][:3] == ["-m", "benchmarks.metrics", "--images=300"]


def test_the_prototypes_benchmark_says_what_share_of_an_epoch_they_take(tmp_path, capsys):
    from benchmarks import prototypes

    report = tmp_path / "report.json"
    sizes = ["--scale", "0.001", "--categories", "3", "--width", "8", "--joined-images", "40"]
    prototypes.main([*sizes, "--json", str(report)])
    facts = json.loads(report.read_text())
    assert len(facts["ratios"]) == 1 and facts[prototypes.JOINED] > 0
    assert {"collecting", "K-means, 1 thread"} < set(facts["share_of_an_epoch"])
    assert all(value > 0 for value in facts["share_of_an_epoch"].values())
    assert "assumed" in capsys.readouterr().out


def test_the_benchmark_of_label_tables_reads_what_it_made_up(tmp_path, capsys):
    from benchmarks import label_tables

    label_tables.make_up(tmp_path / "a.csv", rows=300, categories=7, given=0.5)
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame.shape == (300, 8) and frame.image.is_unique
    assert 0.4 < frame.notna().iloc[:, 1:].to_numpy().mean() < 0.6
    label_tables.main(["--rows", "300", "--categories", "7", "--json", str(tmp_path / "report.json")])
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["command"] == ["-m", "benchmarks.label_tables", "--rows=300", "--categories=7", "--given=0.5"]
    assert facts["ratios"].keys() == {label_tables.RATIO} and facts["taken"]["by_the_package"]["seconds"] > 0
    assert "300 rows, 7 categories" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_heads_benchmark_sets_the_short_form_beside_the_literal_one_that_it_equals(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.head", "--quick", "--json", report]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    facts = json.loads(report.read_text())
    forms = ("short", "short, 90 % read", "short, 10 % read")
    names = [f"{piece}, 2 x 2: {form} over literal" for piece in ("head", "sarb") for form in forms]
    names += [f"sarb, 2 x 2: {form} over apart" for form in forms[1:]]
    assert list(facts["ratios"]) == [*names, "product, 2 x 2: short over literal"]
    assert facts["largest_difference"] < facts["tolerance"] and "literal" in printed
    assert all(row["seconds"] > 0 and row["share_of_peak"] >= 0 for row in facts["rows"].values())


@pytest.mark.slow
def test_the_frozen_parts_benchmark_sets_the_packages_beside_torchs_ways(tmp_path, capsys):
    from benchmarks import frozen

    report = tmp_path / "report.json"
    frozen.main(["--quick", f"--json={report}"])
    facts = json.loads(report.read_text())
    names = ("channels last", "folded", "folded, channels last", "bf16", "the package's")
    ratios = [*(f"{name} over as it comes" for name in names), "the package's over the fastest in float32"]
    assert list(facts["ratios"]) == ratios and all(value > 0 for value in facts["ratios"].values())
    assert "the package's" in capsys.readouterr().out


@pytest.mark.slow
def test_the_frozen_parts_benchmark_times_nothing_that_computes_something_else(monkeypatch):
    from benchmarks import frozen

    monkeypatch.setattr(frozen.folding, "fold", lambda network: network[0].weight.data.mul_(1.01))
    with pytest.raises(SystemExit, match=r"^folded differs from what comes as it is"):
        frozen.measure(32, 1, 1, compiled=False)


@pytest.mark.slow
def test_the_steps_benchmark_sets_a_step_beside_the_references(tmp_path, capsys):
    from benchmarks import step

    report = tmp_path / "report.json"
    step.main(["--quick", "--methods", "sarb", f"--json={report}"])
    facts = json.loads(report.read_text())
    known = [f"sarb, {ratio} % known" for ratio in (10, 90)]
    assert list(facts["ratios"]) == [f"{k}: {p} over reference" for k in known for p in step.PRECISIONS]
    assert all(value > 0 for value in facts["seconds"].values()) and "sarb" in capsys.readouterr().out
    assert facts["gflop"].keys() == facts["seconds"].keys() and min(facts["gflop"].values()) > 0
    assert facts["matmul_peak_gflops"].keys() == set(step.PRECISIONS)
    reference, ours = (facts["gflop"][f"sarb, 10 % known: {form}"] for form in ("reference", "32-true"))
    assert ours < reference  # what no loss reads is not computed


@pytest.mark.slow
def test_the_steps_benchmark_times_nothing_that_computes_something_else(monkeypatch):
    from benchmarks import step

    literal = step.LiteralHead.features
    monkeypatch.setattr(step.LiteralHead, "features", lambda self, *given: 2 * literal(self, *given))
    with pytest.raises(SystemExit, match=r"ssgrl, 10 % known: losses of the first step differ"):
        step.measure(["ssgrl"], (64, 2, 20), 1)


def test_the_heads_benchmark_times_nothing_that_computes_something_else(monkeypatch):
    from benchmarks import head

    monkeypatch.setattr(head, "tanh_scores", lambda *values: 1.001 * head.plain(*values))
    with pytest.raises(SystemExit, match=r"product, short: scores differs"):
        head.ProfilingSetting(head.QUICK.sizes, 2, head.torch.device("cpu")).agreement("product")


def run_gpu(parts, report):
    from benchmarks import gpu

    with pytest.raises(SystemExit) as ended:
        gpu.main(["--device", "cpu", "--quick", "--json", str(report), "--only", *parts])
    return ended.value.code, json.loads(report.read_text())


@pytest.mark.slow
def test_the_gpus_benchmark_runs_to_its_end_on_a_cpu_and_finds_nothing_wrong(tmp_path):
    names = ("correctness", "frozen", "group", "compile", "steps", "deterministic")
    code, facts = run_gpu(names, tmp_path / "report.json")
    assert code == 0 and facts["device"] == "CPU"
    parts = [facts[name] for name in names]
    assert all(part["results"] and "failed" not in part for part in parts)
    assert all("wrong" not in result for result in facts["correctness"]["results"].values())


def test_the_gpus_benchmark_ends_with_1_where_something_is_computed_wrongly(tmp_path, monkeypatch):
    from benchmarks import gpu, gpu_correctness, head

    def failing(session):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(gpu_correctness, "tanh_scores", lambda *values, chunk: 1.001 * head.plain(*values))
    monkeypatch.setattr(gpu.Session, "methods", lambda session, few: [])
    monkeypatch.setitem(gpu.PARTS, "head", failing)
    monkeypatch.setitem(gpu.PARTS, "compile", lambda session: iter([("it", {"ratio": 1.5})]))
    code, facts = run_gpu(["correctness", "head", "compile"], tmp_path / "report.json")
    assert code == 1 and "above the tolerance" in facts["correctness"]["results"]["tanh_scores"]["wrong"]
    assert facts["head"]["failed"] == "RuntimeError: no luck" and facts["compile"]["results"] == {"it": {"ratio": 1.5}}


def test_what_the_gpus_benchmark_leaves_out_has_an_exit_code_of_its_own():
    from benchmarks import gpu

    right, wrong, cut = {"results": {"a": {}}}, {"results": {"a": {"wrong": "b"}}}, {"results": {}, "left_out": "c"}
    failed = {"results": {}, "failed": "d"}
    for expected, parts in (
        (0, [right, right]), (1, [right, wrong]), (1, [failed, right]), (3, [right, cut]), (1, [wrong, cut])
    ):  # fmt: skip
        assert gpu.exit_code({"device": "CPU", **dict(zip(("correctness", "steps"), parts, strict=True))}) == expected


def test_methods_with_dropout_are_right_whatever_a_device_draws_for_it(monkeypatch):
    from benchmarks import gpu_correctness
    from mlrpl_bench.models.registry import load_methods

    seeds, late_run = iter(range(9)), gpu_correctness.late_run
    monkeypatch.setattr(
        gpu_correctness, "late_run", lambda *given: (late_run(*given), torch.manual_seed(next(seeds)))[0]
    )
    for name in ("q2l", "ml_decoder"):
        assert max(gpu_correctness.method_differences(load_methods()[name], "cpu").values()) <= 1
    assert next(seeds) == 4  # both sides of both methods


@pytest.mark.parametrize("now, lines", [(1.5, 0), (1.99, 0), (2.01, 1), (float("nan"), 1), (0.1, 0)])
def test_a_ratio_that_grew_by_more_than_a_third_is_a_problem(now, lines):
    assert len(check.problems({"a over b": 1.5}, {"a over b": now, "new": 9.0})) == lines


@pytest.mark.parametrize("now, lines", [(0.9, 0), (0.92, 1), (1.0, 1)])
def test_a_gain_of_which_more_than_half_is_lost_is_a_problem(now, lines):
    assert len(check.problems({"a over b": 0.82}, {"a over b": now})) == lines


@pytest.mark.parametrize("now, lines", [(1.09, 0), (1.11, 1)])
def test_a_result_may_say_its_own_limits(now, lines):
    assert len(check.problems({"a over b": 1.0}, {"a over b": now}, {"a over b": 1.1})) == lines


KNOWN = {
    "frozen": ["the package's over as it comes", "the package's over the fastest in float32"],
    "step": [f"{method}, {ratio} % known: {precision} over reference" for method in ("ssgrl", "sarb")
             for ratio in (10, 90) for precision in ("32-true", "bf16-mixed")],
    "head": ["sarb, 7 x 7: short, 10 % read over literal", "head, 7 x 7: short, 10 % read over literal"],
    "growth": ["categories, head: growth for ten times the size", "group, in a group: over the limit",
               "records, tables and page: growth for ten times the size", "records, page: largest over 10 MB",
               "records, peak_gb: growth for ten times the size", "images, hiding: growth for ten times the size"],
    "groups": ["sarb x 9: group / floor"],
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_the_check_knows_what_was_promised(name):
    assert set(KNOWN[name]) <= check.recorded_in(check.RESULTS)[name]["ratios"].keys()


def test_a_ratio_that_is_measured_no_more_is_a_problem():
    assert check.problems({"a over b": 1.5}, {}) == ["a over b: recorded 1.50, but not measured any more"]


def test_the_check_fails_with_a_line_for_each_worse_ratio_and_leaves_out_results_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "other.json").write_text('{"seconds": 3}')
    for name in ("good", "bad"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"command": [name], "ratios": {"a over b": 1.5}}))
    monkeypatch.setattr(check, "measured_again", lambda command: {"a over b": 3.0 if command == ["bad"] else 1.5})
    with pytest.raises(SystemExit) as ended:
        check.main(["--results", str(tmp_path)])
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "bad: a over b: 3.00, recorded 1.50: worse by 100 %",
        "good: as recorded",
    ]
    with pytest.raises(SystemExit) as ended:
        check.main(["good", "--results", str(tmp_path)])
    assert ended.value.code == 0


def test_the_check_runs_the_recorded_command_and_counts_one_that_fails_as_not_measured():
    writes = 'import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text(\'{"ratios": {"a": 2}}\')'
    assert check.measured_again(["-c", writes]) == {"a": 2}
    assert check.measured_again(["-c", "raise SystemExit(3)"]) == {}


@pytest.mark.parametrize("name", sorted(check.recorded_in(check.RESULTS)))
def test_recorded_ratios_are_numbers_of_a_command_that_exists(name):
    recorded = check.recorded_in(check.RESULTS)[name]
    assert recorded["command"][0] == "-m" and all(ratio > 0 for ratio in recorded["ratios"].values())
    assert (ROOT / recorded["command"][1].replace(".", "/")).with_suffix(".py").is_file()


def measured_growth(part, sizes, report):
    from benchmarks import growth

    growth.main(["--only", part, "--sizes", *map(str, sizes), "--json", str(report)])
    return json.loads(report.read_text())


def test_growth_is_measured_beside_a_limit_and_parts_are_kept(tmp_path, capsys):
    measured_growth("categories", (2, 4), tmp_path / "growth.json")
    facts = measured_growth("images", (200, 400), tmp_path / "growth.json")
    assert list(facts["parts"]) == ["categories", "images"]
    for part in facts["parts"].values():
        assert len(part["limit_seconds"]) == 2 and min(part["limit_seconds"]) > 0
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in part["seconds"].values())
    assert "images, mask, by_id: growth for ten times the size" in facts["ratios"]
    assert "images: row order" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", ["group", "records"])
def test_growth_of_groups_and_of_records_is_measured_too(tmp_path, part):
    facts = measured_growth(part, {"group": (1, 2), "records": (18, 36)}[part], tmp_path / "growth.json")
    assert facts["parts"][part]["limit_seconds"][1] > 0
    assert part == "group" or facts["parts"][part]["more"]["page_mb"][0] > 0.01


def test_growth_is_said_as_a_power_of_the_size():
    from benchmarks import growth

    assert growth.exponent([1, 10, 100], [5.0, 7.0, 700.0]) == pytest.approx(2)
    curve = {"sizes": [1, 10], "seconds": {"a": [1.0, 10.0]}, "more": {}}
    assert growth.ratios({"part": curve}) == {"part, a: growth for ten times the size": 10}
    assert growth.ratios({"part": {**curve, "sizes": [10], "seconds": {"a": [10.0]}}}) == {}
    of_group = {"seconds": {"in a group": [1.0, 10.0], "each alone": [1.0, 20.0]}, "limit_seconds": [1.0, 8.0]}
    assert growth.ratios({"group": curve | of_group}) == {"group, in a group: over the limit": 1.25}
    of_page = {"more": {"peak_gb": [1.0, 2.0], "page_mb": [4.0, 3.0]}}
    assert list(growth.ratios({"records": curve | of_page}).items())[1:] == [
        ("records, peak_gb: growth for ten times the size", 2),
        ("records, page: largest over 10 MB", 0.4),
    ]


def test_the_picture_of_growth_belongs_to_the_committed_numbers(tmp_path):
    from benchmarks import growth

    drawn, committed = growth.draw(), growth.PICTURE.read_bytes()
    digest = re.search(rb"SHA-256 (\w{64})", committed)
    assert digest is not None and digest[1] in drawn, "run python -m benchmarks.growth --draw"
    other = tmp_path / "growth.json"
    other.write_text(growth.RESULTS.read_text().replace('"categories": {', '"categories":  {', 1))
    assert digest[1] not in growth.draw(other)


@pytest.mark.slow
def test_the_benchmark_of_kept_memory_counts_fewer_page_faults_with_it(tmp_path, capsys, monkeypatch):
    from benchmarks import host_memory

    for name in host_memory.host_memory.CHOICES_OF_THE_USER:
        monkeypatch.delenv(name, raising=False)
    report = tmp_path / "report.json"
    host_memory.main(["--backbone", "resnet18", "--batch", "16", "--rounds", "1", f"--json={report}"])
    facts = json.loads(report.read_text())
    assert 0 <= facts["kept"]["page_faults"] < facts["without"]["page_faults"]
    assert facts["ratios"][host_memory.RATIO] > 0 and "given back" in capsys.readouterr().out
