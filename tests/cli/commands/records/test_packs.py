"""``records export`` and ``records import`` as a user meets them."""

import json

import pytest

from tests.helpers.command import in_folder
from tests.helpers.packs import HERE, members_of, rewritten, stored
from tests.helpers.tiny_study import cell, finished


@pytest.fixture
def bench(world, monkeypatch):
    return in_folder(monkeypatch, world.folder)


def test_records_travel_and_are_measured_again(bench, world, tmp_path):
    code, out, err = bench("records", "export", "--methods=plain", f"--out={tmp_path / 'a.zip'}")
    assert (code, err) == (0, "")
    packed, digest = out.splitlines()
    assert packed.startswith(f"packed 1 record into {tmp_path / 'a.zip'}: ") and packed.endswith("scores float16")
    into = f"--results-dir={tmp_path / 'in'}"
    code, out, err = bench("records", "import", tmp_path / "a.zip", into, *world.plugins)
    assert (code, out.splitlines(), err) == (0, [digest, "imported 1 record"], "")
    listed = json.loads(bench("list", "cells", "--json", into).out)
    assert [row["status"] for row in listed] == ["submitted"]
    code, out, _ = bench("verify", "--files", into, *world.plugins)
    assert code == 0 and "none disagree" in out
    again = bench("verify", listed[0]["key"], "--epochs=1", "--device=cpu", into, *world.plugins)
    assert again.code == 0 and "bit-identical" in again.out
    (row,) = json.loads(bench("list", "cells", "-v", "--json", into).out)
    assert row["status"] == "re-measured" and row["origin"] == "submitted, re-measured here: bit-identical"


def test_a_method_that_nobody_here_has_is_named_and_never_run(bench, world, tmp_path):
    bench("records", "export", "--methods=plain", f"--out={tmp_path / 'a.zip'}")
    into = f"--results-dir={tmp_path / 'in'}"
    code, out, _ = bench("records", "import", tmp_path / "a.zip", into)
    assert code == 0 and "plain: 1 record of a method that is not registered here" in out
    listed = bench("list", "cells", "--json", into)
    assert (listed.code, listed.err) == (0, "")
    assert [row["cell"] for row in json.loads(listed.out)] == ["plain 50 % seed 0"]


def test_weights_that_were_asked_for_and_are_not_here_are_said(bench, tmp_path):
    store = stored(tmp_path / "a", 0)
    store.write(finished(cell(seed=1)), HERE, keep_weights=False)
    chosen = ("records", "export", "--train-scores", f"--results-dir={tmp_path / 'a'}")
    code, _, err = bench(*chosen, "--weights", f"--out={tmp_path / 'a.zip'}")
    assert (code, err) == (0, "--weights: 1 of 2 records had weights here to be packed\n")
    assert bench(*chosen, f"--out={tmp_path / 'b.zip'}").err == ""
    done = bench(*chosen, "--weights", "--json", f"--out={tmp_path / 'c.zip'}")
    assert json.loads(done.out)["with_weights"] == 1


def test_conflicts_are_listed_with_exit_code_1(bench, tmp_path):
    stored(tmp_path / "a")
    stored(tmp_path / "b", noise=1)
    pack = tmp_path / "a.zip"
    bench("records", "export", f"--out={pack}", "--train-scores", f"--results-dir={tmp_path / 'a'}")
    code, out, _ = bench("records", "import", pack, f"--results-dir={tmp_path / 'b'}")
    lines = out.splitlines()
    assert code == 1 and lines[1] == "imported 0 records"
    assert lines[2].startswith("not imported, as 2 cells have other numbers here (import into another --results-dir")
    assert len(lines) == 5 and all(" here, mAP " in line and line.endswith(" in the pack") for line in lines[3:])
    code, out, _ = bench("records", "import", pack, f"--results-dir={tmp_path / 'b'}", "--json")
    assert code == 1 and len(json.loads(out)["conflicts"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--out=x.zip", "--results-dir=no-results"),
        ("export", "--out=x.zip", "--scores=float64"),
        ("import", "nothing.zip"),
        ("import", "nothing.zip", "--trusted-keys=no-keys"),
    ],
)
def test_bad_input_is_one_line(bench, arguments):
    code, out, err = bench("records", *arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


def test_a_pack_with_a_path_that_leads_elsewhere_is_one_line(bench, tmp_path):
    stored(tmp_path / "a")
    pack = tmp_path / "a.zip"
    bench("records", "export", f"--out={pack}", "--train-scores", f"--results-dir={tmp_path / 'a'}")
    rewritten(pack, {**members_of(pack), "../../up": b"x"})
    code, out, err = bench("records", "import", pack, f"--results-dir={tmp_path / 'in'}")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "nothing was imported" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.zip"]
