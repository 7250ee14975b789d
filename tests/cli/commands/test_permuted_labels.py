"""What ``test-method --permuted-labels`` prints and refuses."""

import pytest

from mlrpl_bench.cli.commands.permuted_labels import is_blind_to_label_files
from mlrpl_bench.tools.conformance import permuted_labels
from tests.helpers.tiny_study import DATASET, refusal, write_plugin


@pytest.mark.parametrize("problem", [None, "its scores change"])
def test_the_answer_is_a_line_like_those_of_the_other_checks(problem, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(permuted_labels, "check", lambda *arguments: asked.append(arguments) or problem)
    plugin = write_plugin(tmp_path / "set.py", DATASET)
    assert is_blind_to_label_files("sarb", "tiny", tmp_path, None, [plugin]) == (problem is None)
    line = capsys.readouterr().out
    assert line.startswith(
        "ok      the scores do not depend" if problem is None else "FAILED  the scores do not depend"
    )
    assert line.rstrip().endswith("files of tiny" if problem is None else "files of tiny: its scores change")
    assert (asked[0][0].name, asked[0][1].name, asked[0][2].data_root) == ("sarb", "tiny", tmp_path)


def test_a_data_set_must_be_named():
    assert "--dataset NAME" in refusal(lambda: is_blind_to_label_files("sarb", None, None, None, None))
