"""This module defines the command ``data check``, which says whether a run would succeed, and what to type next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.commands.data.opening import DatasetArgument, registered, root_of, with_data
from mlrpl_bench.cli.options import JsonOption, PluginOption, program
from mlrpl_bench.training.options import apply_options, described, flag

if TYPE_CHECKING:
    from mlrpl_bench.tools.inspection.checking import CheckResult
    from mlrpl_bench.training.options import Options

OF_A_RUN = (
    *("evaluate_on", "preset", "epochs", "batch", "image_size", "backbone", "weights"),
    *("trained_stages", "feature_width", "attention_width", "lr_multiplier"),
)
"""These are the options of a run that a check looks ahead with."""


@with_data(*OF_A_RUN)
def check(
    dataset: DatasetArgument,
    plugin: PluginOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Decode 200 images of each split instead of all.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode, 0: none.", show_default="one a core")
    ] = None,
    as_json: JsonOption = False,
    output: Annotated[Path | None, typer.Option("--output", help="Also write the findings as JSON here.")] = None,
    *,
    options: Options,
) -> None:
    """Say what is there and what is missing, and decode the images. Exit code 0 if a run would succeed."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools.inspection import checking, findings_text
    from mlrpl_bench.utils.files import write_atomically

    entry, instance = registered(dataset, options, plugin)
    folder = root_of(entry, options)
    with Display() as display:
        instance.report = display.report
        preset = apply_options(options, entry.preset_called(options.preset))
        findings = checking.check(
            instance, folder, quick, workers, display.report, preset, options.weights, options.evaluate_on
        )
    content = json.dumps({"dataset": dataset, **findings.to_json()}, indent=1)
    if as_json:
        print(content)
    else:
        findings_text.print_findings(findings, dataset)
        _print_next(findings, dataset, options, plugin)
    if output is not None:
        write_atomically(output, content + "\n")
    if not findings.ok:
        raise typer.Exit(1)


def _print_next(findings: CheckResult, dataset: str, options: Options, plugin: list[Path] | None) -> None:
    """Print the next command to type, with the options that the findings say to add."""
    added = [option.removeprefix("--set-data ") for option in findings.to_add if option.startswith("--set-data ")]
    replaced = {pair.partition("=")[0] for pair in added}
    pairs = [
        *(f"{name}={value}" for name, value in options.data.items() if name not in replaced),
        *added,
    ]
    given = [f"--plugin {shlex.quote(str(path))}" for path in plugin or ()]
    given += [f"--set-data {shlex.quote(pair)}" for pair in pairs]
    to_replace = {option.partition(" ")[0] for option in findings.to_add}
    chosen = {flag(name): getattr(options, name) for name in OF_A_RUN}
    usual = {flag(name): described()[name].default for name in OF_A_RUN}
    given += [
        f"{written} {shlex.quote(str(value))}"
        for written, value in chosen.items()
        if value not in (None, usual[written]) and written not in to_replace
    ]
    folder = "" if options.data_root is None else shlex.quote(str(options.data_root))
    again = " ".join([program(), "data check", dataset, *([f"--root {folder}"] if folder else []), *given])
    run = [program(), "leaderboard --dataset", dataset, *([f"--data-root {folder}"] if folder else []), *given]
    run += [option for option in findings.to_add if not option.startswith("--set-data ")]
    if findings.options_are_enough:
        print(f"next:\n  {' '.join(run)}")
        if findings.quick:
            print(f"all images are decoded by:\n  {again}")
    elif added:
        print(f"next:\n  {again}")
    else:
        print(f"next: mend what is named above, then\n  {again}")
    if findings.images_can_be_skipped:
        print(f"or go on without these images:\n  {' '.join(run)} --on-bad-image skip")
