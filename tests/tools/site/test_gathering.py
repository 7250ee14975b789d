"""Folders and packs are read as one, and what disagrees is named in one line each."""

import shutil
from pathlib import Path

import pytest

from mlrpl_bench.tools.site.gathering import gather
from tests.helpers import packs
from tests.helpers.made_up_site import KEPT, edit
from tests.helpers.made_up_table import records
from tests.helpers.tiny_study import make_of_another_version, refusal


@pytest.fixture
def here(tmp_path):
    """A folder of four records, and a place for packs."""
    records(tmp_path / "here", ["plain"])
    (tmp_path / "unpacked").mkdir()
    return tmp_path / "here"


def found_in(*results: Path):
    return gather(results, results[0].parent / "unpacked")


def test_other_bytes_of_one_cell_are_a_note_and_other_numbers_a_problem(here, tmp_path):
    there = shutil.copytree(here, tmp_path / "there")
    same, other, *_ = sorted((there / "tiny" / "plain").iterdir())
    edit(same, lambda content: content["cost"].update(seconds=9.0))
    edit(other, lambda content: content["metrics"].update(mAP=0.125))
    found = found_in(here, there)
    assert len(found.records) == 3 and all(record.folder.is_relative_to(here) for record in found.records)
    (problem,) = found.problems
    assert problem.endswith("are of one cell and disagree; move the wrong one away")
    (note, empty) = found.notes
    assert note.startswith("tiny: 1 cell trained more than once with the same metrics and other bytes")
    assert empty == f"{there} has no record that only it has and that can be used"
    assert found.public(found.problems) == [problem.replace(f"{tmp_path}/", "")]


def test_equal_copies_are_no_note(here, tmp_path):
    records(shutil.copytree(here, tmp_path / "there"), ["weak"])
    found = found_in(here, tmp_path / "there")
    assert (len(found.records), found.problems, found.notes) == (8, [], [])


def test_a_folder_that_is_named_twice_is_read_once(here):
    (here / "kept.md").write_text(KEPT)
    twice = found_in(here, here)
    assert len(twice.records) == 4 and [table.name for table in twice.tables] == ["kept"]
    assert (twice.problems, twice.notes) == ([], [])


def test_records_of_another_version_are_counted(here):
    make_of_another_version(sorted((here / "tiny" / "plain").iterdir())[0])
    found = found_in(here)
    assert len(found.records) == 3
    assert found.notes[0].startswith("left out: 1 record of protocol version")


def test_a_pack_is_read_like_a_folder_and_stays_as_it_is(here, tmp_path):
    pack = packs.packed(packs.stored(tmp_path / "theirs"), tmp_path / "pack.zip")
    before = pack.read_bytes()
    found = found_in(here, pack)
    submitted = [record for record in found.records if record.origin.pack]
    assert (len(submitted), len(found.records), found.problems) == (2, 6, [])
    assert found.notes == [f"{pack} is a pack: 2 records measured elsewhere"]
    assert found.public([f"{submitted[0].folder}: damaged"])[0].startswith("pack.zip/tiny/")
    assert pack.read_bytes() == before


def test_what_disagrees_with_a_pack_is_named_by_the_pack(tmp_path):
    pack = packs.packed(packs.stored(tmp_path / "theirs", 0, noise=1), tmp_path / "pack.zip")
    packs.stored(tmp_path / "mine", 0)
    (tmp_path / "unpacked").mkdir()
    packs.stored(tmp_path / "mine", 1)
    (problem,) = found_in(tmp_path / "mine", pack).problems
    assert f"{pack}/tiny/" in problem and "unpacked" not in problem


def test_a_damaged_pack_is_refused(here, tmp_path):
    (tmp_path / "pack.zip").write_bytes(b"no pack")
    said = refusal(lambda: found_in(here, tmp_path / "pack.zip"))
    assert "is damaged or no pack" in said and "imported" not in said


def test_a_folder_without_anything_is_named_and_alone_refused(here, tmp_path):
    (tmp_path / "empty").mkdir()
    assert found_in(here, tmp_path / "empty").notes == [f"{tmp_path / 'empty'} holds no records and no tables"]
    assert "there is nothing to show" in refusal(lambda: found_in(tmp_path / "empty"))
    assert "name the folder above it" in refusal(lambda: found_in(here / "tiny"))
    (here / "tiny" / "leaderboard.md").write_text(KEPT)
    (note,) = found_in(here / "tiny").notes
    assert note.endswith("its tables are shown, not its records; name the folder above it")
    assert "is not there" in refusal(lambda: found_in(tmp_path / "nowhere"))


def test_tables_are_enough(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.md").write_text(KEPT)
    assert [table.name for table in found_in(tmp_path / "kept").tables] == ["a"]
