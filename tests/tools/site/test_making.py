"""A site of every kind of folder: its links lead somewhere, its bytes are the same each time, and browsers show it."""

import json
import re
from urllib.parse import unquote

import pytest

from tests.helpers import made_up_site
from tests.helpers.made_up_site import STRANGE
from tests.helpers.pages import Reader, chromium
from tests.helpers.tiny_study import contents

PAPER = "https://example.org/plain"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders, the site of them and what was said of it."""
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(root / "cache"))
        folders = made_up_site.folders(root)
        results = [folders.results, folders.others, folders.kept]
        said, _ = made_up_site.made(root / "out", results, folders.plugins, root / "unpacked")
        made_up_site.made(root / "again", results, folders.plugins, root / "unpacked")
    return root, said


@pytest.fixture(scope="module")
def pages(made):
    root = made[0] / "out"
    return {path.relative_to(root).as_posix(): Reader(path.read_text("utf-8")) for path in root.rglob("*.html")}


def of_kind(pages, kind: str) -> list[str]:
    return sorted(path for path in pages if path.startswith(kind))


def test_there_is_a_page_for_everything(made, pages):
    assert made[1].pages == len(pages) == 1 + 3 + 4 + 9
    assert [len(of_kind(pages, kind)) for kind in ("boards/", "methods/", "records/")] == [3, 4, 9]
    assert (
        made[1].bytes == sum(map(len, contents(made[0] / "out").values())) - (made[0] / "out/site.json").stat().st_size
    )


def test_the_same_records_give_the_same_bytes(made):
    assert contents(made[0] / "out") == contents(made[0] / "again")


def test_every_link_leads_somewhere(made, pages):
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), path
        for href in {*page.hrefs, *page.sources} - {PAPER}:
            target, _, fragment = href.partition("#")
            there = (made[0] / "out" / path).parent / unquote(target) if target else made[0] / "out" / path
            assert there.is_file(), (path, href)
            if fragment:
                name = there.resolve().relative_to((made[0] / "out").resolve()).as_posix()
                assert fragment in pages[name].ids, (path, href)


def test_numbers_lead_to_records_and_back(pages):
    board = next(path for path in of_kind(pages, "boards/tiny"))
    number = r"\.\./methods/plain\.html#tiny-\w+-row-plain-at-0\.5"
    assert any(re.fullmatch(number, href) for href in pages[board].hrefs)
    records = {href.removeprefix("../") for href in pages["methods/plain.html"].hrefs if "/records/" in href}
    assert len(records) == 4 and records <= set(pages)  # three of tiny, without the one that disagrees, one of squares
    for record in records:
        assert any(href.startswith((f"../{board}", "../boards/squares")) for href in pages[record].hrefs)


def test_names_are_never_markup_and_nothing_is_loaded_from_elsewhere(made, pages):
    for path, page in pages.items():
        text = (made[0] / "out" / path).read_text("utf-8")
        assert "alert(1)<" not in text and "<script>alert" not in text, path
        inside = 1 if path.startswith(("records", "boards/tiny", "boards/squares-19")) else 0
        assert page.tags.count("script") == 1 + inside, path
        assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {PAPER}, path
        assert "script-src 'self' file:;" in f"{page.policy};" and "default-src 'none'" in page.policy
    script = (made[0] / "out" / "site.js").read_text()
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML|https?://(?!www\.w3\.org)", script)


def test_data_files_hand_over_json(made):
    paths = list((made[0] / "out" / "data").rglob("*.js"))
    assert paths
    for path in paths:
        name, content = re.fullmatch(r'registerData\("(.*?)", (.*)\);\n', path.read_text(), re.DOTALL).groups()
        assert name == path.relative_to(made[0] / "out" / "data").with_suffix("").as_posix()
        assert json.loads(content) and "<" not in content


def test_pages_say_how_sure_and_how_verified(made):
    text = (made[0] / "out" / "index.html").read_text("utf-8")
    assert "squares (1): 2 rows without an interval" in text
    assert "results/tiny/plain/0.5-s1-" in text and str(made[0]) not in text
    assert "with the same metrics and other bytes" in text
    strange = (made[0] / "out" / next(iter(of_kind({p: 0 for p in _names(made)}, "methods/script")))).read_text("utf-8")
    assert "This method is not registered here" in strange


def _names(made) -> list[str]:
    return [path.relative_to(made[0] / "out").as_posix() for path in (made[0] / "out").rglob("*.html")]


# In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    yield from chromium()


@pytest.fixture
def opened(browser, made):
    """Opens pages of the site from the disk; at the end no message and no request for anything else was seen."""
    site, seen, contexts = (made[0] / "out").as_uri(), [], []

    def open_page(path="index.html", width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(5000)
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.on("requestfailed", lambda request: seen.append(request.url))
        tab.on("request", lambda r: None if r.url.startswith(site) and r.method == "GET" else seen.append(r.url))
        tab.goto(f"{site}/{path}")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


def test_from_the_overview_to_a_record(opened):
    tab = opened()
    head = tab.locator("#table-methods thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    tab.locator("#table-boards").get_by_role("link", name="tiny", exact=True).click()
    tab.get_by_label("Filter by method").first.fill("plain")
    assert tab.locator("#table-leaderboard tbody tr:visible").count() == 1
    tab.locator("#table-leaderboard tbody tr:visible td").nth(1).get_by_role("link").click()
    assert tab.evaluate("location.pathname").endswith("/methods/plain.html")
    record = tab.locator("details[open] tbody:target th a").first  # the link's target was unfolded
    record.wait_for(state="visible")
    record.click()
    assert tab.get_by_role("heading", level=1).inner_text().startswith("plain, 90 % known, seed")
    assert tab.locator("#panels path.curve").count() == 4
    tab.get_by_role("link", name="All results").click()
    assert tab.locator("#table-boards").is_visible()


def test_data_of_a_row_is_loaded_when_it_is_looked_at(opened, made):
    name = next(path for path in _names(made) if path.startswith("boards/tiny"))
    tab = opened(name)
    assert tab.locator("#chart-metric path.curve").count() == 2
    tab.locator("#chart-bars rect").first.wait_for()
    loaded = "[...document.scripts].filter(s => s.src.includes('/data/')).length"
    assert tab.evaluate(loaded) <= 2
    tab.locator("#trained").select_option(STRANGE)
    tab.locator("#panels figcaption").first.wait_for()
    assert tab.locator("#panels figcaption").all_inner_texts() == ["loss: bce", "loss: late", "alpha", "mAP, percent"]


def test_a_board_without_its_data_set_says_why_it_has_no_bars(opened, made):
    boards = [path for path in _names(made) if path.startswith("boards/squares-")]
    tab = opened(next(path for path in boards if "squares-all" not in path))  # that is a kept table
    assert "the data set, which names its categories, was not there" in tab.locator("#chart-bars").inner_text()
    assert not tab.get_by_label("Compared with").is_visible()


def test_search_by_keyboard_finds_methods_and_records(opened):
    tab = opened("methods/plain.html")
    tab.keyboard.press("/")
    tab.keyboard.type("<SCRIPT method")
    link = tab.locator("#hits a").first
    link.wait_for(state="visible")
    assert link.inner_text() == STRANGE
    tab.keyboard.press("Escape")
    assert not tab.locator("#hits").is_visible()
    tab.keyboard.type("90 % seed 1 plain")
    tab.locator("#hits a").first.get_by_text("plain 90 % seed 1").wait_for()  # another has a 1 in its key
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/records/*")
    assert tab.get_by_role("heading", level=1).inner_text() == "plain, 90 % known, seed 1"


@pytest.mark.parametrize("kind", ["index", "boards/tiny", "boards/squares-all", "methods/plain", "records/"])
def test_every_kind_of_page_fits_a_phone_and_can_be_read_by_everybody(opened, made, kind):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    path = next(name for name in sorted(_names(made)) if name.startswith(kind))
    unfold = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
    for scheme in ("light", "dark"):
        tab = opened(path, 390, scheme)
        tab.evaluate(unfold)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        found = axe.Axe().run(tab, options={"preload": False}).response["violations"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found] == []
