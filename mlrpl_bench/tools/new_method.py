"""This module writes the file of a new method for ``new NAME``: a whole, working method to edit."""

from __future__ import annotations

import keyword
from pathlib import Path

from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import PACKAGE

TEMPLATE = '''"""One line about the idea of {name}.

Differs from its paper: nothing yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlrpl_bench import Backbone, Batch, Progress, Recipe, Task, parameter, register_method
from mlrpl_bench.models.layers import SemanticGraphMethod
from mlrpl_bench.models.losses import partial_bce


@register_method("{name}", idea="One sentence for the tables.", paper="", differs="nothing yet")
class {class_name}(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        weight: float = parameter(1.0, "weight of the loss", low=0)

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        # The base builds SSGRL's network and its forward; without it, derive from Method and write your own.
        # task.labels_NC holds the training labels that are known: PRESENT, ABSENT, and UNKNOWN for the hidden ones.
        super().__init__(backbone, task, hyperparameters)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        # Whatever is random is drawn from batch.generator, as in torch.rand(3, generator=batch.generator).
        return {{"partial_bce": self.hyperparameters.weight * partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}}
'''


def write(name: str) -> Path:
    """Write the template for a new method into ``methods/`` of a checkout, else into the current folder.

    Raises:
        UserError: the name is no lower-case identifier, or is taken.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or name.startswith("_"):
        raise UserError(f"{name!r} is no name for a method; use lower-case letters, digits and _, such as my_method")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    if keyword.iskeyword(class_name):
        raise UserError(f"{name!r} would make a class called {class_name}; choose another name")
    folder = PACKAGE.parent / "methods"
    if not folder.is_dir() or (PACKAGE / "methods").is_dir():
        folder = Path()
    path = folder / f"{name}.py"
    methods = load_methods()
    if path.exists() or name in methods:
        taken = methods[name].path if name in methods else path
        raise UserError(f"there is a method {name!r} already, in {taken}; choose another name")
    path.write_text(TEMPLATE.format(name=name, class_name=class_name), encoding="utf-8")
    return path


def plugin_hint(path: Path) -> str:
    """Return the option that a command needs to find the file; "" in a checkout."""
    return "" if path.is_absolute() else f" --plugin {path}"
