"""This module groups the options of a command's help in panels, and names their values in one short word each.

Panels and words stand here, once for all commands; the options themselves are declared in `options`, `placing` and
beside each command. A command of `App` has them without saying so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

WHAT, SETTING, MACHINE, OUTPUT = "What to work on", "Setting", "Machine", "Output"
ORDER = (WHAT, SETTING, MACHINE, OUTPUT)
"""These are the panels in the order of the help."""

TITLES = {
    **dict.fromkeys(("run", "leaderboard", "worker"), "What to train"),
    **dict.fromkeys(("ensembles", "ranks", "cost", "categories"), "What to analyse"),
    **{
        "tune": "What to tune",
        "compare": "What to compare",
        "claims": "What to judge",
        "predict": "What to score with",
    },
    **{"fill": "What to fill in", "profile": "What to measure", "verify": "What to verify", "list": "What to list"},
    **{"test-method": "What to check", "export": "What to pack", "import": "What to import", "check": "What to check"},
    **{
        "site": "What to show",
        "stats": "What to count",
        "show": "What to show",
        "prepare": "What to prepare",
        "mask": "What to mask",
    },
}
"""This is the title of the first panel, by command."""

KINDS: dict[str, dict[str, str]] = {
    WHAT: {
        **{"dataset": "NAME", "datasets": "NAMES", "methods": "NAMES", "setting": "NAME", "split": "NAME"},
        **{"ratios": "SHARES", "ratio": "SHARE", "seeds": "N", "seed": "N", "mask_seed": "N"},
        **{"set_": "PAIR", "set_values": "LIST", "rates": "FACTORS", "data": "PAIR"},
        **{"data_root": "FOLDER", "plugin": "FILE", "tuned": "", "tuned_file": "FILE", "cell": "KEY"},
        **{"files": "", "share": "PERCENT", "tolerance": "POINTS", "promised": "SHARE", "permuted_labels": ""},
        **{"classes": "N", "steps": "N", "quick": "", "images": "N", "word_vectors": "FILE"},
        **{"trusted_keys": "FILE", "no_train": ""},
    },
    SETTING: {
        **{"preset": "NAME", "epochs": "N", "batch": "N", "image_size": "PIXELS", "backbone": "NAME"},
        **{"weights": "FILE", "trained_stages": "N", "feature_width": "N", "attention_width": "N"},
        **{"lr_multiplier": "FACTOR", "evaluate_on": "SPLIT", "mask_scheme": "NAME", "mask_file": "FILE"},
        **{"image_backend": "NAME", "precision": "NAME", "trained_precision": "NAME", "on_bad_image": "WORD"},
        **{"compile": ""},
    },
    MACHINE: {
        **{"device": "NAME", "workers": "N", "deterministic": "", "group": "N", "group_most": "N"},
        **{"checkpoint_every": "TIME", "evaluate_every": "N", "shard": "PART", "workers_planned": "N", "wait": ""},
        **{"place_launcher": "NAME", "place_workers": "N", "place_ray_address": "ADDRESS"},
        **{"place_accelerator": "NAME", "place_partition": "NAME", "place_time": "TIME"},
    },
    OUTPUT: {
        **{"results_dir": "FOLDER", "out": "PATH", "output": "PATH", "keep_weights": "WORD", "published": ""},
        **{"scores": "WORD", "train_scores": "", "save": "", "yes": "", "top": "N", "threshold": ""},
        **{"verbose": "", "markdown": "", "dry_run": "", "as_json": "", "log_json": "", "help": ""},
    },
}
"""This maps panel and parameter to what stands for the option's value; nothing for a switch."""

_PLACES = {name: (panel, word) for panel, kinds in KINDS.items() for name, word in kinds.items()}


class PanelledCommand(TyperCommand):
    """This command's help has its options in panels.

    A panel or a word that an option's own declaration names is kept.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters: arguments, then the options in the order of the panels."""
        params: list[Any] = list(super().get_params(ctx))
        for param in params:
            if param.param_type_name != "option":
                continue
            panel, word = _PLACES.get(param.name, (None, None))
            if param.rich_help_panel in (None, WHAT):
                param.rich_help_panel = TITLES.get(self.name or "", WHAT) if panel == WHAT else panel
            if param.metavar is None:
                param.metavar = word
        return sorted(params, key=_place)


def _place(param: Any) -> int:
    """Return a panel's place: arguments come first; a panel that is none of the other three is the first one."""
    if param.param_type_name != "option":
        return 0
    return 1 + ORDER.index(param.rich_help_panel) if param.rich_help_panel in ORDER else 1


class App(typer.Typer):
    """This application's commands have their options in panels."""

    def command(self, name: str | None = None, **facts: Any) -> Callable[[Any], Any]:
        """Add a command, as Typer does."""
        return super().command(name, **{"cls": PanelledCommand, **facts})
