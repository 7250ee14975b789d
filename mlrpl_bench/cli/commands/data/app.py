"""This module puts the commands under ``data`` together, which check, show and prepare a dataset before training on it.

What is slow is imported in the commands.
"""

from __future__ import annotations

from mlrpl_bench.cli.commands.data.check import check
from mlrpl_bench.cli.commands.data.mask import mask
from mlrpl_bench.cli.commands.data.prepare import prepare
from mlrpl_bench.cli.commands.data.show import show
from mlrpl_bench.cli.commands.data.stats import stats
from mlrpl_bench.cli.terminal.panels import App

data_app = App(
    no_args_is_help=True, help="Check a dataset's files, count its labels, look at its images, make them ready."
)

data_app.command()(check)
data_app.command()(stats)
data_app.command()(show)
data_app.command()(prepare)
data_app.command()(mask)
