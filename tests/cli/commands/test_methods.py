"""The commands for authors of methods, where `test_app` does not call them."""

import pytest
import typer

from mlrpl_bench.cli.commands import methods
from tests.helpers.tiny_study import METHOD, write_plugin


def test_every_check_has_its_line(tmp_path, capsys):
    methods.test_method("plain", [write_plugin(tmp_path / "mine.py", METHOD)])
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) > 10 and all(line.startswith("ok    ") for line in lines)


def test_a_check_that_fails_is_exit_code_1(tmp_path, capsys):
    broken = METHOD.replace("partial_bce(", "0 * partial_bce(")
    with pytest.raises(typer.Exit) as end:
        methods.test_method("plain", [write_plugin(tmp_path / "mine.py", broken)])
    assert end.value.exit_code == 1
    assert "FAILED" in capsys.readouterr().out
