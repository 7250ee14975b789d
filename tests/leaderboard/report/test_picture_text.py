"""Names in pictures: short, told apart, in letters that the font has."""

import warnings

import pytest

from mlrpl_bench.leaderboard.report.picture_text import LACKING, drawable, font_file, picture_names, shortened

LONG = "a rather long name of a category which goes on and on"


def test_what_the_font_lacks_is_replaced_and_what_it_has_stays():
    assert drawable("🦊 fox") == f"{LACKING} fox" and drawable("猫") == LACKING
    assert drawable("Straße кошка γάτα") == "Straße кошка γάτα"
    assert drawable("two\nlines") == "two lines"


def test_what_is_drawn_needs_no_other_font():
    from matplotlib.figure import Figure

    figure = Figure()
    names = picture_names(["🦊 fox", "猫", "a$b$", LONG]).names
    figure.subplots().set_yticks(range(4), names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_short_names_stay_as_they_are_without_a_note():
    assert picture_names(["cat", "dog"]) == (["cat", "dog"], "")


def test_long_names_that_differ_at_their_ends_are_told_apart():
    names, note = picture_names([f"{LONG} (first)", f"{LONG} (second)"])
    assert names[0] != names[1] and all(len(name) <= 18 for name in names)
    assert note == "long names are shortened (…)"


@pytest.mark.parametrize("names", [["🦊", "🐶", "cat"], [f"{LONG} a {LONG}", f"{LONG} b {LONG}", "cat"]])
def test_names_that_look_alike_are_numbered_and_the_note_says_so(names):
    shown, note = picture_names(names)
    assert len(set(shown)) == 3 and shown[0].endswith(" #1") and shown[1].endswith(" #2") and shown[2] == "cat"
    assert "#3 is the third category" in note


def test_a_dollar_sign_starts_no_formula():
    assert shortened("$a_1$") == r"\$a_1\$" == picture_names(["$a_1$"]).names[0]


def test_the_font_is_there():
    assert font_file().is_file()
