"""The command-line options that decide a setting, written once for every command that trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mlrpl_bench.training.options import Options


def _setting(
    data_root: Annotated[
        Path | None, typer.Option("--data-root", envvar="MLRPL_DATA", help="The folder with the dataset's files.")
    ] = None,
    set_data: Annotated[
        list[str] | None, typer.Option("--set-data", help="An option of the dataset, name=value. Repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Training length.", show_default="preset's")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images per step.", show_default="preset's")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Side of the network's input.", show_default="preset's")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="small, resnet101 or a timm model.", show_default="preset's")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="A local weight file, or random.", show_default="pre-trained")
    ] = None,
    evaluate_on: Annotated[
        str, typer.Option("--evaluate-on", help="test, or val: a tenth of the training images, for tuning.")
    ] = "test",
    mask_scheme: Annotated[
        str, typer.Option("--mask-scheme", help="hcp (the papers'), by_id, positives_only or single_positive.")
    ] = "hcp",
    mask_file: Annotated[
        Path | None, typer.Option("--mask-file", help="Use this mask (.npz, .npy) instead of drawing one.")
    ] = None,
    on_bad_image: Annotated[
        str, typer.Option("--on-bad-image", help="error, or skip: leave out missing and damaged images.")
    ] = "error",
    image_backend: Annotated[
        str, typer.Option("--image-backend", help="reference, fast, prepared-jpeg95 or prepared-raw.")
    ] = "reference",
    precision: Annotated[str, typer.Option("--precision", help="32-true or bf16-mixed.")] = "32-true",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the networks (needs a C++ compiler, or Triton on a GPU).")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Loader processes; numbers do not depend on it.", show_default="by device"),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="On a GPU, the same bits in every run; slower. A CPU does so anyway, with the same number of threads.",
        ),
    ] = False,
) -> Options:
    """What decides a setting, for every command that trains."""
    from mlrpl_bench.models.hyperparameters import parse_assignments
    from mlrpl_bench.training.options import Options

    return Options(
        data_root=data_root,
        data=parse_assignments(set_data or [], "--set-data"),
        epochs=epochs,
        batch=batch,
        image_size=image_size,
        backbone=backbone,
        weights=weights,
        evaluate_on=evaluate_on,
        mask_scheme=mask_scheme,
        mask_file=mask_file,
        on_bad_image=on_bad_image,
        image_backend=image_backend,
        precision=precision,
        compile=compile,
        device=device,
        workers=workers,
        deterministic=deterministic,
    )


def with_setting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_setting` in place of its parameter ``options``."""
    shared = inspect.signature(_setting, eval_str=True, locals={"Options": object}).parameters

    def with_options(**given: Any) -> None:
        values = {name: given.pop(name) for name in shared}
        command(**given, options=_setting(**values))

    own = inspect.signature(command, eval_str=True, locals={"Options": object}).parameters
    merged = [parameter for name, parameter in own.items() if name != "options"] + list(shared.values())
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
    return with_options
