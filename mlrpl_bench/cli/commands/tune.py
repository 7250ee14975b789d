"""The command ``tune``: choose learning rates and hyper-parameters on validation images, by one budget for all."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.commands.train import KeepWeightsOption, Manner
from mlrpl_bench.cli.options import (
    DatasetOption,
    keeps_weights,
    method_names,
    ratio_numbers,
    with_fields,
    with_options,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.models.hyperparameters import parse_assignments
from mlrpl_bench.training.options import described
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.training.options import Options


@with_options(*(name for name in described() if name != "evaluate_on"))
@with_fields(Manner, "manner", without=("shard", "workers_planned", "log_json"))
def tune(
    methods: Annotated[
        str, typer.Argument(help="Names such as ssgrl,sarb, or all, or paper.", autocompletion=completion.methods)
    ],
    dataset: DatasetOption = "scenes",
    rates: Annotated[
        str, typer.Option("--rates", help="Factors on each method's learning rate, such as 0.3,1,3.")
    ] = "0.3,1,3",
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set-values", help="Values of a hyper-parameter that every method has, such as alpha=0.3,0.5. Repeatable."
        ),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option("--ratios", help="Known shares of the trials such as 0.1,0.5.", show_default="0.5")
    ] = None,
    keep_weights: KeepWeightsOption = "none",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file that the chosen values are added to.", show_default="beside the tables"),
    ] = None,
    *,
    manner: Manner,
    options: Options,
) -> None:
    """Choose each method's learning rate and hyper-parameters on a tenth of the training images, with one seed.

    Every method gets the same trials: each rate with each combination of the values. The test images are not looked at.
    What was chosen is used by leaderboard --tuned and run --tuned.
    """
    from mlrpl_bench.api.actions import tuning
    from mlrpl_bench.api.resolving import resolve
    from mlrpl_bench.cli.display import Display

    request = Request(
        dataset=dataset,
        methods=method_names(methods),
        ratios=ratio_numbers(ratios),
        options=replace(options, evaluate_on="val"),
        **manner.of_request(),
        keep_weights=keeps_weights(keep_weights),
        only_these_rows=True,
    )
    tried = rate_numbers(rates), values_by_name(set_values or [])
    with Display() as display:
        resolved = resolve(tuning.with_usual_ratio(request), display)
        if manner.dry_run:
            planned = tuning.plan(resolved, display, *tried, out)
        else:
            found = tuning.tune(resolved, display, *tried, out)
    if manner.dry_run:
        print(json.dumps(planned.to_json(), indent=1) if manner.as_json else planned.to_text())
        return
    if manner.as_json:
        print(json.dumps(found.content, indent=1))
    else:
        found.table(f"Tuning on {dataset}").print()
    if found.chosen:
        print(f"wrote {found.path}", file=sys.stderr)
    for problem in found.problems:
        print(f"not used: {problem}", file=sys.stderr)
    for failure in found.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if found.without_choice or found.problems:
        raise typer.Exit(1)


def rate_numbers(text: str) -> tuple[float, ...]:
    """Convert ``0.3,1,3`` to factors on a learning rate.

    Raises:
        UserError: a part is no number above 0.
    """
    found = []
    for part in _parts(text):
        try:
            found.append(float(part))
        except ValueError:
            raise UserError(f"--rates {text}: {part!r} is no number; write 0.3,1,3") from None
        if not found[-1] > 0:
            raise UserError(f"--rates {text}: {part} must be above 0; 1 is the method's own learning rate")
    if not found:
        raise UserError("--rates has no value; write them with commas between, such as 0.3,1,3")
    return tuple(found)


def values_by_name(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Convert ``["alpha=0.3,0.5"]`` to lists of texts by name.

    Raises:
        UserError: a pair that is none, a name twice, or no value.
    """
    names = [pair.partition("=")[0].strip() for pair in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--set-values names {twice[0]} twice; write all its values in one list")
    found = {name: _parts(text) for name, text in parse_assignments(pairs, "--set-values").items()}
    if empty := [name for name, values in found.items() if not values]:
        raise UserError(f"--set-values {empty[0]}= has no value; write them with commas between, such as 0.3,0.5")
    return found


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
