"""The worker's command line stands alone on standard output."""

import shlex

from mlrpl_bench.launchers import printed
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import WorkOrder, command
from mlrpl_bench.launchers.placement import Placement


def test_the_command_line_is_all_that_is_printed(tmp_path, capsys):
    order = WorkOrder({}, "print", 1, "", {}, {})
    said = []
    printed.start(Launch(order, tmp_path / "order.json", Placement("print"), None, dict, said.append))
    out = capsys.readouterr().out
    assert shlex.split(out) == command(tmp_path / "order.json") and out.count("\n") == 1
    assert said == []
