"""The pages above the leaderboards: columns of different ones fit each other, and what is unknown is said."""

import json
import re

import pytest

from mlrpl_bench.models.registry import Registry
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site import board_pages, kept_tables, pages
from mlrpl_bench.tools.site.boards import build
from mlrpl_bench.tools.site.grouping import group
from mlrpl_bench.training.options import Options
from tests.helpers.made_up_site import KEPT
from tests.helpers.made_up_table import records


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Records, and the summaries of their leaderboard and of a kept table."""
    folder = tmp_path_factory.mktemp("records")
    of = records(folder, ["plain", "weak"])
    (grouped,) = group(of, {}, {})
    board = build(grouped, Labels({}, Options(device="cpu")), Registry("method"))
    assert board is not None
    measured = board_pages.summary(board, "tiny", board_pages.details_of(board), ["plain"])
    (folder / "squares.md").write_text(KEPT)
    (kept,) = kept_tables.read_kept_tables(folder)
    return of, [measured, kept_tables.summary(kept, "squares", Registry("method"))]


def rows_of(html: str, name: str) -> list[list[str]]:
    body = re.search(rf'id="table-{name}".*?<tbody>(.*?)</tbody>', html, re.DOTALL).group(1)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[re.sub(r"<.*?>|\s+", " ", cell).strip() for cell in row] for row in cells]


def test_the_overview_sums_up_leaderboards_and_kept_tables(found):
    html = pages.overview(found[1], found[0], ["something is damaged"], [])
    assert "3 methods on 2 data sets, 2 leaderboards, 8 records." in html
    (tiny, squares) = rows_of(html, "boards")
    assert tiny[0] == "tiny" and tiny[5:] == ["2", "10, 50 %", "2", "8"]
    assert squares[2:5] == ["other[a_b=1]", "41.5", "39.0 – 43.0"] and squares[-1] == "not here"
    assert [row[0] for row in rows_of(html, "methods")] == ["other[a_b=1]", "plain", "weak"]
    assert "something is damaged" in html and "Kept as tables without their records" in html
    assert "tiny: 2 rows without an interval" in html


def test_a_method_has_all_its_rows_in_common_columns(found):
    html = pages.method_pages(found[1], {})["methods/plain.html"]
    heads = re.findall(r"<button type=\"button\">(.*?)</button>", html)
    assert heads[:6] == ["leaderboard", "place", "average mAP", "95 % interval", "10 %", "50 %"]
    assert [row[0] for row in rows_of(html, "standing")] == ["tiny", "squares"]
    assert rows_of(html, "standing")[1][1:5] == ["2 of 2", "≈ 40.0  ± 1.0", "38.0 – 42.0", "40.0  ± 1.0"]
    assert "This method is not registered here" in html


def test_search_has_every_page_once(found):
    text = pages.search_data(found[1], {}, found[0], {record.cell.key: "tiny" for record in found[0]})
    entries = json.loads(re.fullmatch(r'registerData\("search", (.*)\);\n', text).group(1))
    assert len(entries) == len({href for *_, href in entries}) == 2 + 3 + 8
    assert entries[-1][:2] == ["weak 50 % seed 1", f"record on tiny, {found[0][-1].cell.key[:8]}"]
