"""Progress takes the rows and columns that the terminal has, and counts what it has no room for."""

import io

import pytest
from rich.console import Console

from mlrpl_bench.cli.terminal.bars import Bars

LONG = "sarb[prototypes=5,contrastive=0.02]"


@pytest.fixture
def drawn():
    """Draw bars and lines on a terminal of some size; returns the lines of the screen."""

    def drawn(bars, lines, width, height, encoding="utf-8"):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", write_through=True)
        console = Console(file=file, force_terminal=True, width=width, height=height, color_system=None)
        progress = Bars(console, is_live=False)
        for what, fields in bars.items():
            progress.update(progress.add(what, 8000, left=7260.0), completed=120, **fields)
        progress.lines.update(lines)
        console.print(progress.get_renderable())
        return file.buffer.getvalue().decode(encoding).splitlines()

    return drawn


BARS = {"cells": {}, "training 9 cells": {"facts": "epoch 3/20"}}
LINES = {f"{LONG} {percent} % seed 0": "loss 0.2500  mAP 45.7" for percent in range(10, 100, 10)}


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (80, 8), (60, 24), (60, 5), (40, 3), (40, 1)])
def test_it_fits(drawn, width, height):
    screen = drawn(BARS, LINES, width, height)
    assert len(screen) <= max(height - 1, 2)
    assert max(map(len, screen)) <= width


def test_all_cells_are_shown_with_their_facts_where_there_is_room(drawn):
    screen = drawn(BARS, LINES, 80, 24)
    assert [line.strip() for line in screen[2:]] == [f"{title}  {facts}" for title, facts in LINES.items()]
    assert screen[0].split()[0] == "cells" and screen[0].rstrip().endswith("2 h 1 min left")
    assert "epoch 3/20" in screen[1] and "120/8000" in screen[1]


def test_cells_that_have_no_room_are_counted(drawn):
    screen = drawn(BARS, LINES, 80, 8)
    assert len(screen) == 7 and screen[-1] == "  and 5 more cells"
    assert drawn(BARS, LINES, 80, 12)[-1].strip().startswith(LONG)
    assert drawn(BARS, LINES, 80, 11)[-1] == "  and 2 more cells"


def test_bars_that_have_no_room_are_counted_too(drawn):
    workers = {f"node{number} (1)": {} for number in range(9)}
    assert drawn(workers, {"a": ""}, 80, 6)[-1] == "  and 5 more bars, 1 more cell"


def test_of_a_long_name_the_end_stays_which_tells_cells_apart(drawn):
    screen = drawn(BARS, LINES, 60, 24)
    assert screen[2] == "  sarb[prototypes=5….02] 10 % seed 0  loss 0.2500  mAP 45.7"
    assert all(line.endswith("loss 0.2500  mAP 45.7") for line in screen[2:])


def test_bars_get_shorter_before_anything_is_cut(drawn):
    wide, narrow = drawn(BARS, {}, 120, 24), drawn(BARS, {}, 60, 24)
    assert "0:00:00" in wide[1] and "0:00:00" not in narrow[1]
    for screen in (wide, narrow):
        assert "120/8000 epoch 3/20" in screen[1] and screen[1].rstrip().endswith("2 h 1 min left")


def test_no_time_is_shown_while_none_is_known(drawn):
    assert "left" not in drawn({"cells": {"left": None}}, {}, 80, 24)[0]


def test_it_is_drawn_with_ascii_where_there_is_nothing_else(drawn):
    screen = drawn(BARS, LINES, 120, 24, encoding="ascii")
    assert "?" not in "".join(screen)


def test_brackets_are_no_markup(drawn):
    assert drawn({"a[b]": {"facts": "[c]"}}, {"d[e]": "[f]"}, 80, 24)[1] == "  d[e]  [f]"
