"""What ``test-method --permuted-labels`` does."""

from __future__ import annotations

from pathlib import Path

from mlrpl_bench.cli.options import registries
from mlrpl_bench.utils.errors import UserError


def is_blind_to_label_files(
    method: str, dataset: str | None, data_root: Path | None, set_data: list[str] | None, plugin: list[Path] | None
) -> bool:
    """Say whether a method's scores change with the labels in a data set's files; True if they do not."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.models.hyperparameters import parse_assignments
    from mlrpl_bench.tools.conformance import permuted_labels
    from mlrpl_bench.training.options import Options

    if dataset is None:
        raise UserError("--permuted-labels needs a data set with label files: --dataset NAME --data-root FOLDER")
    methods, datasets = registries(plugin)
    options = Options(data_root=data_root, data=parse_assignments(set_data or [], "--set-data"))
    entry, plugins = methods[method], [path.resolve() for path in plugin or ()]
    with Display() as display:
        problem = permuted_labels.check(entry, datasets[dataset], options, plugins, display.report)
    what = f"the scores do not depend on the labels in the files of {dataset}"
    print(f"ok      {what}" if problem is None else f"FAILED  {what}: {problem}")
    return problem is None
