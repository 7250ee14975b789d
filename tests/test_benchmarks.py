"""The benchmark scripts run, and say what they promise. Their numbers are not tested."""

import json
import subprocess
import sys
from pathlib import Path

from mlrpl_bench.views import BACKENDS, PREPARED_RAW, REFERENCE

ROOT = Path(__file__).resolve().parents[1]


def test_the_data_pipelines_benchmark_measures_every_backend_beside_torchvision(tmp_path):
    script, report = ROOT / "benchmarks" / "data_pipeline.py", tmp_path / "report.json"
    command = [sys.executable, script, "--num-images", "4", "--size", "28", "--rounds", "1", "--json", report]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    rows = json.loads(report.read_text())["rows"]
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


def test_labels_masks_and_the_label_graph_are_timed(tmp_path):
    script, report = ROOT / "benchmarks" / "data_pipeline.py", tmp_path / "report.json"
    command = [sys.executable, script, "--labels", "--num-labelled", "200", "--json", report]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    facts = json.loads(report.read_text())
    steps = ["labels, first reading", "labels, kept", "mask, hcp", "mask, by_id", "label graph"]
    assert list(facts["seconds"]) == steps and facts["images"] == 200 and facts["annotations"] == 1461
    assert all(step in printed for step in steps)


def test_the_leaderboards_benchmark_says_how_long_each_part_takes_and_that_the_bytes_are_the_same(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.leaderboard", "--quick", "--json", report]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    facts = json.loads(report.read_text())
    parts = {"reading records", "reading evidence", "intervals", "paired comparisons", "tables", "writing tables"}
    assert parts <= set(facts["regenerated"]) and all(part in printed for part in parts)
    assert facts["identical"] and {"leaderboard.csv", "measurements.csv"} <= set(facts["bytes_written"])
    assert facts["regenerated"]["peak_gb"] > 0 and facts["cold"]["cells_per_hour"] > 0
