"""The words of an error on one line."""

import pytest

from mlrpl_bench.utils.errors import UserError, one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (UserError(" a\tb \r\n"), "a b"),
        (ValueError(), ""),
        ("a text\nas well", "a text as well"),
    ],
)
def test_an_error_is_said_on_one_line(error, line):
    assert one_line(error) == line
