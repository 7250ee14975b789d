"""The page is the same each time, holds no foreign markup, and works in a real browser without a network."""

import json
import re

import pytest

from mlrpl_bench.leaderboard.report import details, page_data
from mlrpl_bench.leaderboard.report.page import Picture, render
from mlrpl_bench.leaderboard.report.page_data import methods
from mlrpl_bench.leaderboard.tables.main import Context, build
from mlrpl_bench.utils.tables import Entry, Table
from tests.helpers.made_up_table import HOSTILE, METHODS, leaderboard
from tests.helpers.pages import Reader, chromium
from tests.helpers.tiny_study import CATEGORIES

PAPER = "https://example.org/plain"
PNG = bytes.fromhex(  # one pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000"
    "000049454e44ae426082"
)
EXTRA = Table("claims", "Claims", ("verdict",), [("a above b", [Entry("holds")])], ("a note",), "claim")


def page(table) -> str:
    return render(
        table,
        extras=[EXTRA],
        pictures=[Picture(PNG, "a pixel", "One pixel.")],
        defaults=["plain"],
        papers={"plain": PAPER},
        files=["measurements.csv"],
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return leaderboard(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def text(table):
    return page(table)


def test_the_same_records_give_the_same_bytes(table, text):
    assert page(table) == text


def test_every_link_leads_somewhere_on_the_page(text):
    found = Reader(text)
    assert len(found.ids) == len(set(found.ids))
    inside = {href[1:] for href in found.hrefs if href.startswith("#")}
    assert inside <= set(found.ids)
    assert {href for href in found.hrefs if not href.startswith("#")} == {PAPER, "measurements.csv"}


def test_every_record_can_be_linked_to(table, text):
    keys = {e.record.cell.key[:8] for of_place in table.cells.values() for e in of_place.values()}
    assert {one for one in Reader(text).ids if one.startswith("cell-")} == {f"cell-{key}" for key in keys}


def test_a_page_of_too_many_records_and_rows_is_shorter_says_so_and_its_links_hold(table, text, monkeypatch):
    assert "too many for a page" not in text and "can be drawn here" not in text
    monkeypatch.setattr(details, "MOST_RECORDS", 1)
    monkeypatch.setattr(page_data, "MOST_ROWS", 1)
    short = page(table)
    found = Reader(short)
    assert "too many for a page" in short and "the strongest 1 can be drawn here" in " ".join(short.split())
    assert len(short) < len(text) and not [one for one in found.ids if one.startswith("cell-")]
    assert {href[1:] for href in found.hrefs if href.startswith("#")} <= set(found.ids)
    assert "row-plain-at-0.1" in found.ids and "#row-plain-at-0.1" in found.hrefs


def test_nothing_is_loaded_from_elsewhere(text):
    found = Reader(text)
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert not {"link", "iframe", "object", "embed"} & set(found.tags)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {PAPER, "http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)


def test_names_are_never_markup(tmp_path):
    hostile = HOSTILE.replace("/", "|")  # a method's name is a folder's
    categories = (HOSTILE, '"><img src=x onerror=alert(1)>', "</script>", "{{ 7 * 7 }}")
    found = page(leaderboard(tmp_path, [hostile, *METHODS], categories))
    assert "alert(1)<" not in found and "<script>alert" not in found and "<img src=x" not in found
    assert Reader(found).tags.count("script") == 2
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', found, re.DOTALL)
    assert json.loads(data)["categories"] == list(categories)
    assert hostile in json.loads(data)["rows"]


def test_marks_and_holes_are_words_too(text):
    assert '<span class="away">best: </span>' in text
    assert "failed: out of memory (seed 0)" in text
    assert "shorter &amp; &lt;b&gt;bolder&lt;/b&gt;" in text


def test_a_stopped_cell_says_where_it_stands():
    holes = {("a", 0.1): "stopped at epoch 1 of 2 (seed 0)"}
    assert "stopped at epoch 1 of 2</" in render(build({}, ["a"], [0.1], Context(), holes)).replace(" </", "</")


def test_a_table_without_records_is_a_page():
    found = Reader(render(build({}, ["a"], [0.1], Context(), {})))
    assert "table" in found.tags


# In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    yield from chromium()


@pytest.fixture(scope="module")
def address(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page; at the end no error and no request may have been seen."""
    seen, contexts = [], []

    def open_page(width=1200, scheme="light", fragment=""):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        context.route("**/*", lambda route: route.continue_() if route.request.url == address else route.abort())
        tab = context.new_page()
        tab.set_default_timeout(5000)
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.on(
            "request", lambda r: None if r.url.split("#")[0] == address or r.url[:5] == "data:" else seen.append(r.url)
        )
        tab.goto(address + fragment)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


def test_the_line_of_map_steps_over_epochs_without_evaluation(browser, text, tmp_path):
    seldom = re.sub(r'"test\.mAP":\s*\[[^]]*\]', '"test.mAP":[null,0.25,null,0.5]', text)
    assert seldom != text
    (tmp_path / "index.html").write_text(seldom, encoding="utf-8")
    tab = browser.new_page()
    tab.goto((tmp_path / "index.html").as_uri())
    panel = tab.locator("#panels figure", has_text="mAP, percent")
    drawn = panel.locator("path.curve").first.get_attribute("d")
    tab.close()
    assert re.fullmatch(r"M[\d. ]+L[\d. ]+", drawn)  # from the one to the other


LABELS = "#table-leaderboard tbody tr:visible > th"


def test_a_click_sorts_and_holes_stay_last(opened, table):
    tab = opened()
    head = tab.locator("#table-leaderboard thead th").nth(3)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    strong = [label for label in tab.locator(LABELS).all_inner_texts() if label not in ("top", "absent")]
    assert strong == [label for label in methods(table) if label != "absent"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    weak = tab.locator(LABELS).all_inner_texts()
    assert weak[-1] == "absent"
    assert [label for label in weak if label in strong] == strong[::-1]
    assert tab.locator("#table-leaderboard [aria-sort]").count() == 1


def test_the_filter_leaves_matching_rows(opened):
    tab = opened()
    tab.get_by_label("Filter by method").first.fill("STR weak")
    assert sorted(tab.locator(LABELS).all_inner_texts()) == ["strong", "weak"]
    assert tab.locator("#count-leaderboard").inner_text() == "2 of 6 rows"


def test_a_number_leads_to_its_records(opened, table):
    tab = opened()
    row = tab.locator("#table-leaderboard tbody tr").filter(has=tab.get_by_role("link", name="strong", exact=True))
    row.locator("td").first.get_by_role("link").click()
    assert tab.evaluate("location.hash") == "#row-strong-at-0.1"
    key = table.cells["strong", 0.1][0, 0].record.cell.key[:8]
    tab.locator(f"#cell-{key}").wait_for(state="visible")
    assert "c0ffee" in tab.locator("#row-strong").inner_text()
    assert tab.evaluate("document.querySelector('#row-strong-at-0\\\\.1').getBoundingClientRect().top < innerHeight")


def test_an_address_with_a_record_opens_it(opened, table):
    key = table.cells["weak", 0.5][1, 1].record.cell.key[:8]
    opened(fragment=f"#cell-{key}").locator(f"#cell-{key}").wait_for(state="visible")


def test_figures_follow_their_controls(opened):
    tab = opened()
    assert tab.locator("#chart-metric path.curve").count() == len(METHODS)
    assert tab.locator("#chart-metric .band").count() == len(METHODS)
    tab.locator("#picker summary").click()
    tab.locator("#choices").get_by_label("plain").uncheck()
    assert tab.locator("#chart-metric path.curve").count() == len(METHODS) - 1
    tab.get_by_label("bands").uncheck()
    assert tab.locator("#chart-metric .band").count() == 0
    tab.get_by_label("Metric").select_option("OF1")
    assert "OF1" in tab.locator("#chart-metric svg").get_attribute("aria-label")
    assert tab.locator("#panels figcaption").all_inner_texts() == [
        "loss: bce",
        "loss: late",
        "alpha",
        "mAP, percent",
    ]
    assert tab.locator("#chart-bars rect").count() == len(CATEGORIES) - 1  # nothing has the last one


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_only_tables_scroll_sideways(opened, width):
    tab = opened(width)
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelector('.scroll').scrollWidth") > width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab = opened(scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = axe.Axe().run(tab).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found] == []
