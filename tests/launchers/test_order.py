"""A work order is plain data in a file; what is no order is refused in a line."""

import dataclasses
import json
import shlex
import subprocess
import sys

import pytest

from mlrpl_bench.launchers import order
from mlrpl_bench.launchers.order import WorkOrder
from tests.helpers.tiny_study import refusal

ORDER = WorkOrder({"dataset": "tiny"}, "local", 2, "c0de", {"torch": "2.4"}, {"key": "try"})


def test_it_is_the_same_after_a_journey(tmp_path):
    path = ORDER.write(tmp_path)
    assert WorkOrder.read(path) == ORDER
    assert ORDER.write(tmp_path) == path
    assert dataclasses.replace(ORDER, planned=3).write(tmp_path) != path


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"request": 1}', json.dumps({**ORDER.to_json(), "more": 1})])
def test_what_is_no_order_is_refused(tmp_path, content):
    path = tmp_path / "order.json"
    path.write_text(content)
    assert refusal(lambda: WorkOrder.read(path))


@pytest.mark.parametrize(("name", "value"), [("request", []), ("planned", "2"), ("planned", True), ("failed", None)])
def test_a_field_of_another_type_is_refused(name, value):
    line = refusal(lambda: WorkOrder.from_json({**ORDER.to_json(), name: value}))
    assert f"the work order's {name} is no " in line


def test_an_order_that_is_not_there_is_named(tmp_path):
    assert str(tmp_path / "none.json") in refusal(lambda: WorkOrder.read(tmp_path / "none.json"))


def test_an_order_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / order.FOLDER).write_text("a file in the way")
    assert "name another --results-dir" in refusal(lambda: ORDER.write(tmp_path))


def test_the_command_for_a_shell_starts_a_worker(tmp_path):
    path = tmp_path / "it's an order.json"
    path.write_text("{}")
    assert order.command(path)[0] == sys.executable
    done = subprocess.run(["sh", "-c", order.command_text(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this is no work order of this version")
    assert shlex.split(order.command_text(path)) == order.command(path)


def test_an_installed_package_starts_without_the_script(tmp_path, monkeypatch):
    monkeypatch.setattr(order, "PACKAGE", tmp_path / "mlrpl_bench")
    assert order.command(tmp_path / "o.json")[1:3] == ["-c", "from mlrpl_bench.cli.app import main; main()"]
