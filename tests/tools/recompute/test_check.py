"""What agrees is counted, what disagrees or cannot be computed has a line, and nothing is touched."""

import pytest

from mlrpl_bench.tools.recompute.check import recompute_numbers
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.training.options import Options
from tests.helpers.edited_records import EDITS, edited
from tests.helpers.tiny_study import contents


def test_what_training_left_agrees_in_every_setting(trained, labels):
    before = contents(trained.folder / "results")
    found = recompute_numbers(list(trained.records.values()), labels)
    assert list(found.lines()) == []
    assert found.cells == len(trained.records) and found.holds()
    assert contents(trained.folder / "results") == before


@pytest.mark.parametrize(
    ("name", "what"),
    [("metrics mAP", "mAP"), ("metrics OP", "OF1"), ("metrics CR_top3", "CF1_top3"), ("best_epoch", "best_epoch")],
)
def test_without_labels_the_files_alone_are_looked_at(trained, name, what):
    path, value, _ = EDITS[name]
    found = recompute_numbers([edited(trained.records["usual"], *path, value=value)], Labels({}, Options()))
    line, reason = found.lines()
    assert f" {what} is " in line
    assert "1 of the cells, the first is " in reason and "tiny is not registered; name its file" in reason
    assert found.cells == 0
