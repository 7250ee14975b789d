"""A site replaces itself and nothing else."""

import os

import pytest

from mlrpl_bench.tools.site.output import Output
from tests.helpers.tiny_study import contents, refusal


def write(folder, **files):
    output = Output(folder)
    for path, content in files.items():
        output.add(path.replace("__", "/"), content)
    return output.finish()


def test_pages_that_are_gone_are_removed_and_foreign_files_stay(tmp_path):
    site = tmp_path / "site"
    write(site, index="1", records__a="a", data__x__y="y")
    (site / "CNAME").write_text("example.org")
    assert write(site, index="2", records__b="b") == 2
    assert {name: text for name, text in contents(site).items() if name != "site.json"} == {
        "CNAME": b"example.org",
        "index": b"2",
        "records/b": b"b",
    }
    assert not (site / "data").exists() or not any((site / "data").iterdir())


def test_a_file_with_the_same_bytes_is_not_written_again(tmp_path):
    write(tmp_path / "site", index="1")
    os.utime(tmp_path / "site" / "index", (1, 1))
    write(tmp_path / "site", index="1")
    assert (tmp_path / "site" / "index").stat().st_mtime == 1


@pytest.mark.parametrize("mark", [None, "{}", "[]", "no json"])
def test_a_folder_of_something_else_is_refused_and_stays(tmp_path, mark):
    (tmp_path / "paper.tex").write_text("mine")
    if mark is not None:
        (tmp_path / "site.json").write_text(mark)
    assert "holds something else than a site (paper.tex" in refusal(lambda: Output(tmp_path))
    assert (tmp_path / "paper.tex").read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "site").write_text("mine")
    assert "is no folder that can be read" in refusal(lambda: Output(tmp_path / "site"))


def test_a_link_in_the_place_of_a_page_is_replaced_and_what_it_leads_to_stays(tmp_path):
    write(tmp_path / "site", index="1")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "site" / "index").unlink()
    (tmp_path / "site" / "index").symlink_to(tmp_path / "mine")
    write(tmp_path / "site", index="2")
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "site" / "index").read_text() == "2"
