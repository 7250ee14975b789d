"""From names to what they stand for, and what is refused before any data is read."""

import re
from pathlib import Path

import pytest

from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve, store_of
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError


def resolved(**asked):
    return resolve(Request(**asked), Quiet())


def test_names_become_entries():
    found = resolved(methods=("sarb", "ssgrl"), seeds=2, results=(Path("a"), Path(".")))
    assert [entry.name for entry, _ in found.rows] == ["sarb", "ssgrl"]
    assert (found.dataset.name, found.seeds) == ("scenes", [(0, 0), (1, 1)])
    assert (found.store.root, found.store.others) == (Path("a"), (Path("."),))


def test_no_names_are_the_basic_methods_and_no_ratios_the_presets():
    found = resolved(leaderboard=True)
    assert {entry.name for entry, _ in found.rows} == {
        name for name, entry in found.methods.entries.items() if entry.default
    }
    assert found.ratios == found.dataset.preset.ratios


def test_the_usual_preset_by_its_name_is_the_usual_request():
    photographs = {"dataset": "coco", "methods": ("sarb",)}
    assert resolved(**photographs, options=Options(preset="paper", epochs=3)).request.options == Options(epochs=3)
    assert resolved(**photographs, options=Options(preset="laptop")).request.options == Options(preset="laptop")
    with pytest.raises(UserError, match="--preset big: coco has no such preset; there are: paper, laptop"):
        resolved(**photographs, options=Options(preset="big"))


def test_an_alias_is_its_method_at_its_ratio():
    found = resolved(methods=("upper_bound",))
    alias = found.methods.aliases["upper_bound"]
    assert ([entry.name for entry, _ in found.rows], found.ratios) == ([alias.method], (alias.ratio,))
    with pytest.raises(UserError, match="leave --ratios out"):
        resolved(methods=("upper_bound",), ratios=(0.5,))


def test_one_label_an_image_has_one_column_and_a_mask_file_one_ratio():
    assert resolved(methods=("sarb",), options=Options(mask_scheme="single_positive")).ratios == (1.0,)
    of_file = Options(mask_file=Path("mask.npz"))
    assert resolved(methods=("sarb",), options=of_file, ratios=(0.3,)).ratios == (0.3,)
    for ratios in (None, NINE_RATIOS, (0.1, 0.5)):
        with pytest.raises(UserError, match="name its known ratio"):
            resolved(methods=("sarb",), options=of_file, ratios=ratios)
    assert resolve(Request(methods=(), options=of_file), Quiet(), needs_ratios=False).rows == []


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"methods": ("sarbb",)}, "did you mean 'sarb'?"),
        ({"dataset": "scene"}, "did you mean 'scenes'?"),
        ({"methods": ("sarb",), "overrides": {"alpha": "x"}}, "alpha"),
        ({"methods": ("sarb", "ssgrl"), "overrides": {"alpha": "0.3"}}, "changed for one method at a time"),
        ({"overrides": {"alpha": "0.3"}}, "changed for one method at a time"),
        ({"methods": ("sarb",), "ratios": (1.5,)}, "outside (0, 1]"),
        ({"methods": ("sarb",), "ratios": (0.5, 0.5000000001)}, "are both 50 % in a table"),
        ({"methods": ("sarb",), "ratios": ()}, "no known ratio"),
        ({"methods": ("sarb",), "seeds": 0}, "--seeds 0 must be at least 1"),
        ({"methods": ("sarb",), "evaluate_every": 0}, "--evaluate-every 0 must be at least 1"),
        ({"methods": ("sarb",), "plugins": (Path("not/there.py"),)}, "there is no such file"),
        ({"methods": ("sarb",), "results": ()}, "no folder of results"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(asked, line):
    with pytest.raises(UserError, match=re.escape(line)) as refusal:
        resolved(**asked)
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_loaded_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.setattr("mlrpl_bench.models.registry.bundled_folder", lambda name: tmp_path)
    with pytest.warns(UserWarning, match=r"broken\.py could not be loaded"), pytest.raises(UserError, match="scenes"):
        resolved(methods=())


def test_the_first_folder_is_written_to_and_all_are_read(tmp_path):
    store = store_of([tmp_path / "a", tmp_path])
    assert (store.root, store.others) == (tmp_path / "a", (tmp_path,))
