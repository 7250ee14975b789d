"""A record's page says how sure its row's number is and how the record was verified."""

from dataclasses import replace

import pytest

from mlrpl_bench.leaderboard.report import details, page_data
from mlrpl_bench.models.registry import Registry
from mlrpl_bench.records.elsewhere.origin import Origin
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site import board_pages
from mlrpl_bench.tools.site.boards import Board, build
from mlrpl_bench.tools.site.grouping import group
from mlrpl_bench.training.options import Options
from tests.helpers.made_up_table import leaderboard, records
from tests.helpers.tiny_study import record


def board_of(found) -> Board:
    (of,) = group(found, {}, {})
    board = build(of, Labels({}, Options(device="cpu")), Registry("method"))
    assert board is not None
    return board


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return records(tmp_path_factory.mktemp("records"), ["plain", "weak"])


def page_of(board: Board, key: str) -> str:
    places = {one.cell.key: "tiny/plain/x" for one in [*board.group.records, *(r for r, _ in board.group.others)]}
    return dict(board_pages.record_pages(board, places))[f"records/{key[:12]}.html"]


def test_a_page_says_what_its_row_has_and_why_there_is_no_interval(found):
    text = page_of(board_of(found), found[0].cell.key)
    assert "Over 2 seeds its row has" in text and "there is no interval, because the labels" in text
    assert "Own: measured by whoever has these records." in text


def test_with_an_interval_it_says_over_what(tmp_path):
    table = leaderboard(tmp_path, seeds=1)
    words = board_pages._sure(table, "plain", "0.1", "10 %")
    assert "with a 95 % interval of" in words and words.endswith("One seed says nothing about other seeds.")
    assert "which few rows have" in board_pages._sure(table, "plain", "0.3", "30 %")


def test_a_submitted_record_says_who_vouches_for_it(found):
    origin = Origin("f" * 64, signed_by="a@b", remeasured="bit-identical")
    words = board_pages._verified(replace(record(), origin=origin))
    assert words.startswith("Submitted, signed by a@b, re-measured here: bit-identical. It came in a pack")


def test_a_record_of_other_code_has_a_page_and_no_table(found):
    old = replace(found[0], cell=replace(found[0].cell, source_digest="old"))
    board = board_of([*found, old])
    text = page_of(board, old.cell.key)
    assert "It stands in no table: trained with another version of the method" in text
    files, _ = board_pages.render(board, board_pages.details_of(board), {})
    assert f"../records/{old.cell.key[:12]}.html" in str(files[f"boards/{board.group.slug}.html"])


def test_each_row_has_a_file_of_data_that_the_page_names(found):
    board = board_of(found)
    files, with_data = board_pages.render(board, board_pages.details_of(board), {})
    assert sorted(with_data) == ["plain", "weak"]
    assert all(f"data/{board.group.slug}/{label}.js" in files for label in with_data)
    assert '"loss":' not in str(files[f"boards/{board.group.slug}.html"])


def test_of_many_records_and_rows_a_site_still_lists_and_draws_each_one(found, monkeypatch):
    board = board_of(found)
    path = f"boards/{board.group.slug}.html"
    every = board_pages.details_of(board)
    files, with_data = board_pages.render(board, every, {})
    monkeypatch.setattr(details, "MOST_RECORDS", 1)
    monkeypatch.setattr(page_data, "MOST_ROWS", 1)
    short, short_with_data = board_pages.render(board, every, {})
    assert board_pages.details_of(board) == every and short_with_data == with_data
    assert {**short, path: files[path]} == files
    assert "can be drawn here" not in str(short[path])
    whole_main, whole_more = str(files[path]).split('id="more"')
    main, more = str(short[path]).split('id="more"')
    assert main == whole_main and more.count("#") < whole_more.count("#")  # numbers of secondary tables lead nowhere
