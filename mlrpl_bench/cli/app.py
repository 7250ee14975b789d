"""This module is the command line: the only place that wires everything. What takes long to import is imported in the
commands.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from mlrpl_bench.cli.commands.analyse import analyse_app, claims, compare
from mlrpl_bench.cli.commands.data.app import data_app
from mlrpl_bench.cli.commands.fill import fill
from mlrpl_bench.cli.commands.listing import list_
from mlrpl_bench.cli.commands.methods import new, test_method
from mlrpl_bench.cli.commands.predict import predict
from mlrpl_bench.cli.commands.profile import profile
from mlrpl_bench.cli.commands.records.packs import records_app
from mlrpl_bench.cli.commands.records.site import site
from mlrpl_bench.cli.commands.records.verify import verify
from mlrpl_bench.cli.commands.train import leaderboard, run, worker
from mlrpl_bench.cli.commands.tune import tune
from mlrpl_bench.cli.options import program
from mlrpl_bench.cli.streams import json_lines, print_anything, say
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.cli.terminal.first_steps import first_steps
from mlrpl_bench.cli.terminal.panels import App
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.signals import Interrupted, Terminated, terminate

INTERRUPTED = 130
"""This is the exit code after Ctrl-C."""

app = App(
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Compare methods for multi-label image recognition with partial labels.",
)


@app.callback(invoke_without_command=True)
def begin(ctx: typer.Context) -> None:
    """Say what to do first where no command is given; that is a usage error, as everywhere in Typer."""
    if ctx.invoked_subcommand is None:
        print(first_steps(program()))
        raise typer.Exit(2)


app.add_typer(data_app, name="data")
app.add_typer(records_app, name="records")
app.add_typer(analyse_app, name="analyse")

app.command("list")(list_)
app.command()(run)
app.command()(leaderboard)
app.command()(tune)
app.command("worker", hidden=True)(worker)  # launchers start it
app.command("test-method")(test_method)
app.command()(new)
app.command()(compare)
app.command()(claims)
app.command()(predict)
app.command()(fill)
app.command()(profile)
app.command()(verify)
app.command()(site)


def main() -> None:
    """Run the command line; bad input gives one line and exit code 2, no traceback."""
    signal.signal(signal.SIGTERM, terminate)
    print_anything()
    with json_lines(wanted="--log-json" in sys.argv[1:]):  # also where the arguments are wrong
        _main()


def _main() -> None:
    try:
        try:
            completion.refuse_for_a_script()
            code = app(standalone_mode=False)
        except SystemExit as error:  # commands end otherwise; it is a method's or a dataset's code
            if completion.is_asked_for():  # Typer ends so
                raise
            if isinstance(error.__context__, BrokenPipeError):  # rich ends so when the reader of a table has gone
                raise error.__context__ from None
            raise UserError(f"a file's code called sys.exit({error.code!r}); take the call out of it") from error
        if code == INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        sys.exit(_complain(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted; finished cells are kept, the same command goes on with the rest", INTERRUPTED))
    except Terminated:
        message = "stopped; finished cells are kept, the same command goes on with the rest (SIGTERM)"
        sys.exit(_complain(message, 128 + signal.SIGTERM))
    except Interrupted as stop:
        message = "stopped; finished cells and checkpoints of the others are kept, the same command goes on from them"
        sys.exit(_complain(f"{message} ({stop})", stop.exit_code))
    except BrokenPipeError:  # the reader of our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, RuntimeError) as error:
        if (shortage := shortages.shortage(error)) is not None:
            sys.exit(_complain(str(shortage), 2))
        if not isinstance(error, OSError) or error.filename is None:
            raise
        sys.exit(_complain(f"{error.filename}: {error.strerror}; check the path and its permissions", 2))
    except MemoryError as error:
        sys.exit(_complain(f"no memory left ({error}); what is finished is kept, the same command goes on", 2))
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own errors about arguments have it
            raise
        message = error.format_message().rstrip(".")  # empty where no command was named: the help was shown
        sys.exit(_complain(f"{message}; see {_command_of(error)} --help", 2) if message else 2)


def _command_of(error: Any) -> str:
    """Return the command, as it is typed, whose arguments an error of typer is about."""
    names: list[str] = []
    context = getattr(error, "ctx", None)
    if context is None:  # some errors of parsing do not say where they come from
        known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
        names = [word for word in sys.argv[1:2] if word in known]
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return " ".join([program(), *names])


def _complain(message: str, code: int) -> int:
    say("error", f"error: {' '.join(message.split())}", exit_code=code)
    return code
