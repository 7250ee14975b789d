"""This module defines the command ``predict``, which scores images and draws where each category looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.options import (
    JsonOption,
    PluginOption,
    ResultsOptions,
    plugin_files,
    result_folders,
    say_which_record,
    with_setting,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.tools.predict import Prediction
    from mlrpl_bench.training.options import Options

DRAWN = 20
"""The picture shows at most this many images; scores are printed for all."""


@with_setting
def predict(
    method: Annotated[
        str, typer.Argument(help="A method with a record; see: list cells.", autocompletion=completion.method)
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    cell: Annotated[
        str | None, typer.Option("--cell", help="The beginning of a record's key; see: list cells.")
    ] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", help="What it was trained on.", autocompletion=completion.dataset)
    ] = "scenes",
    ratio: Annotated[float | None, typer.Option("--ratio", help="Its known ratio.", show_default="the highest")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Its training seed.", show_default="the lowest")] = None,
    top: Annotated[int, typer.Option("--top", help="Categories that are shown of an image.")] = 8,
    threshold: Annotated[
        bool, typer.Option("--threshold", help="Of these, only the predicted ones: 50 % or above.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", help="Where the picture goes, a .png.")] = Path("prediction.png"),
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Score images with a trained cell, and draw a picture of where each category looks."""
    from mlrpl_bench.api.actions import reading
    from mlrpl_bench.api.resolving import resolve
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools.inspection import predict_picture
    from mlrpl_bench.tools.predict import Wanted
    from mlrpl_bench.utils.files import write_atomically

    wanted = Wanted(cell, ratio, seed)
    _check(images, top, output)
    request = Request.for_reading(dataset, options, plugin_files(plugin), result_folders(results_dir))
    with Display() as display:
        resolved = resolve(request, display, needs_ratios=False)
        answer = reading.ask(resolved, display, method, images, wanted)
    say_which_record(answer.title, answer.key, answer.fitting)
    title, key, categories, predictions = answer.title, answer.key, answer.categories, answer.predictions
    picture = predict_picture.draw_prediction(predictions[:DRAWN], categories, title, top, threshold)
    write_atomically(output, picture)
    if as_json:
        answers = [prediction.to_json(categories) for prediction in predictions]
        print(json.dumps({"cell": title, "key": key, "images": answers}, indent=1))
    else:
        _print_tables(predictions, categories, top, threshold)
    if predictions[0].attention_CHW is None:
        print(f"{method} has no attention maps; the picture shows scores only", file=sys.stderr)
    only = f" with the first {DRAWN} images" if len(predictions) > DRAWN else ""
    print(f"wrote {output}{only}", file=sys.stderr)


def _check(images: list[Path], top: int, output: Path) -> None:
    """Refuse bad arguments before anything is loaded."""
    from mlrpl_bench.data.images.decoding import decode

    if top < 1:
        raise UserError(f"--top {top} must be at least 1")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: the picture is a PNG; name it something.png")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}")
    for image in images:
        decode(image)


def _print_tables(predictions: Sequence[Prediction], categories: Sequence[str], top: int, only_predicted: bool) -> None:
    from mlrpl_bench.utils.tables import from_text

    for prediction in predictions:
        rows = []
        for column in prediction.best(top, only_predicted):
            share, predicted = prediction.probabilities_C[column], prediction.logits_C[column] >= 0
            rows.append([categories[column], f"{100 * share:.1f} %", "yes" if predicted else "no"])
        head = ["category", "probability", "predicted"]
        from_text("prediction", str(prediction.path), head, rows, (), left=[2]).print()
