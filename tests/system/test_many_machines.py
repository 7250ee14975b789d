"""Every command that the page on many machines shows is run, on twenty pictures and without a GPU."""

import importlib
import json
import re
import shlex
import sys

import pytest

from tests.helpers.command import in_folder
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin

PAGE = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^    python bench\.py (.+)$", PAGE, re.MULTILINE)
ALL = "leaderboard --methods all --ratios all"
ENDS = {
    f"{ALL} --seeds 5 --dry-run --workers-planned 8": (0, "8 workers, "),
    f"{ALL} --launcher local": (2, "error: --launcher local needs --workers N where there is no GPU"),
    f"{ALL} --device cpu --launcher local --workers 2": (0, "2 workers on this machine; what they say is in "),
    f"{ALL} --launcher submitit --workers 16 --partition gpu --time 4:00:00": (2, "error: "),
    f"{ALL} --no-train": (2, "error: no records of this setting in results/tiny; train some first"),
    f"{ALL} --device cuda --launcher ray --ray-address auto": (2, "error: "),
    f"{ALL} --launcher print --workers 8": (0, " worker "),
    f"{ALL} --shard 1/3": (0, "part 1 of 3 is trained; when all are trained, bring their folders to one machine"),
    f"{ALL} --no-train --results-dir a --results-dir b --results-dir c": (2, "error: "),
    f"{ALL} --no-train --results-dir results --results-dir s3://bucket/folder": (
        2,
        "error: --results-dir s3://bucket/folder ",
    ),
}
"""How each ends in an empty folder on a machine without a GPU, SLURM, a Ray cluster or s3fs, and words that it says."""

STARTS_PROCESSES = f"{ALL} --device cpu --launcher local --workers 2"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Give a shown command in a folder with a small data set; it asks for three cells of a small method."""
    for name, text in (("tiny_set.py", DATASET), ("plain.py", METHOD)):
        write_plugin(tmp_path / name, text)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    monkeypatch.setitem(sys.modules, "s3fs", None)  # nobody's bucket is asked
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    call = in_folder(monkeypatch, tmp_path, "--dataset=tiny", "--epochs=1", "--plugin=tiny_set.py", "--plugin=plain.py")

    def shell(shown, *options):
        small = shown.replace("--methods all --ratios all", "--methods plain --ratios 0.2,0.5,0.9")
        assert small != shown
        device = [] if "--device" in shown else ["--device=cpu"]
        return call(*shlex.split(small), *device, *options)

    return shell


def test_every_command_of_the_page_is_run():
    assert set(SHOWN) == set(ENDS)


@pytest.mark.parametrize(
    "shown", [pytest.param(each, marks=pytest.mark.slow if each == STARTS_PROCESSES else ()) for each in ENDS]
)
def test_a_command_ends_as_the_page_says(shell, shown):
    code, words = ENDS[shown]
    answer = shell(shown)
    assert answer.code == code and words in answer.out + answer.err
    assert "Traceback" not in answer.err


def test_the_files_for_clusters_are_yaml_and_the_first_is_as_ray_wants_it():
    yaml, util = pytest.importorskip("yaml"), pytest.importorskip("ray.autoscaler._private.util")
    cluster, job, task = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    util.validate_config(util.prepare_config(cluster))
    assert (job["kind"], list(task)) == ("RayJob", ["resources", "volumes", "run"])
    command = f"mlrpl-bench {ALL} --device cuda --launcher ray --results-dir /shared/results"
    assert job["spec"]["entrypoint"] == command


def test_the_table_of_parts_that_were_trained_apart_is_that_of_one_folder(shell):
    for number, folder in enumerate("abc", start=1):
        assert shell(f"{ALL} --shard 1/3".replace("1/3", f"{number}/3"), "--results-dir", folder).code == 0
    merged = shell(f"{ALL} --no-train --results-dir a --results-dir b --results-dir c", "--json")
    whole = shell(ALL, "--json")
    assert (merged.code, whole.code) == (0, 0)
    assert json.loads(merged.out)["rows"] == json.loads(whole.out)["rows"] != []
