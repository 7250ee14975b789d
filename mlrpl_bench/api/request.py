"""This module defines a request, which says as plain data which cells are wanted; it imports nothing that is slow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

CHECKPOINT_SECONDS = 600.0

MOST_SEEDS = 1000
"""A request may ask for at most this many seeds, ten times what the advice on seeds ever asks for. Before anything is
trained a mask is drawn for each seed and ratio: a thousand masks of COCO take two minutes."""

PATHS = ("plugins", "results")


@dataclass(frozen=True)
class Request:
    """A request says which cells are wanted, in names, numbers and paths alone.

    The command line, a notebook, the memory of unchanged leaderboards and a worker on another machine use the same
    value: it can be pickled, and written as JSON and read back.

    Attributes:
        dataset: a registered data set.
        methods: registered methods; ``all``, ``paper`` (those with published numbers), or None for the basic ones.
        overrides: hyper-parameters that the user changed, as text; only with one method.
        ratios: known ratios in (0, 1]; None for those of the data set's preset.
        seeds: the number of seeds, which count from 0; a seed sets mask and training.
        mask_seed: the seed of one mask for all training seeds; None for a mask for each.
        options: what the user chose of the setting.
        plugins: files with methods and data sets of the user's own.
        results: folders of records; the first is written to, the others are only read.
        group: how many cells are trained side by side, None for as many as fit in memory.
        checkpoint_seconds: how much work may be lost when training is cut off, in seconds.
        evaluate_every: the test images are scored after every so many epochs, and after the last.
        keep_weights: whether a record keeps the trained weights.
        train: whether cells without a record are trained.
        only_these_rows: whether other methods' records are left out of the table.
        leaderboard: whether the table gets its reference rows (the registered aliases), and is written to files.
        published: whether the papers' own numbers get a table.
        tuned: whether methods have the values that `tune` chose, from the file beside the data set's tables.
        tuned_file: the file with these values, in place of that one.
        out: the folder for the files of the leaderboard, None for that of the data set in the first of `results`.
        shard: only the i-th of n parts of the cells, as (i, n) from (1, n) on; there is no table then.
    """

    dataset: str = "scenes"
    methods: tuple[str, ...] | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    ratios: tuple[float, ...] | None = None
    seeds: int = 1
    mask_seed: int | None = None
    options: Options = field(default_factory=Options)
    plugins: tuple[Path, ...] = ()
    results: tuple[Path, ...] = (Path("results"),)
    group: int | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    evaluate_every: int = 1
    keep_weights: bool = True
    train: bool = True
    only_these_rows: bool = False
    leaderboard: bool = False
    published: bool = False
    tuned: bool = False
    tuned_file: Path | None = None
    out: Path | None = None
    shard: tuple[int, int] | None = None

    @classmethod
    def for_reading(
        cls,
        dataset: str,
        options: Options,
        plugins: tuple[Path, ...],
        results: tuple[Path, ...],
        ratios: tuple[float, ...] | None = None,
        mask_seed: int | None = None,
    ) -> Request:
        """Make a request that only reads records: it names no method and trains nothing."""
        return cls(
            dataset=dataset,
            methods=(),
            ratios=ratios,
            mask_seed=mask_seed,
            options=options,
            plugins=plugins,
            results=results,
            train=False,
        )

    def seed_pairs(self) -> list[tuple[int, int]]:
        """Return training seed and mask seed of each repetition: the same, unless one mask is held fixed.

        Raises:
            UserError: there is no repetition, there are too many, or the mask seed is out of range.
        """
        mask_seed = self.mask_seed if self.options.mask_file is None else 0
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds} must be at least 1")
        if self.seeds > MOST_SEEDS:
            why = "a mask is drawn for each before anything is trained"
            raise UserError(f"--seeds {self.seeds} must be at most {MOST_SEEDS}; {why}")
        if mask_seed is not None and not 0 <= mask_seed < 2**32:
            raise UserError(f"--mask-seed {mask_seed} must be between 0 and {2**32 - 1}")
        return [(seed, seed if mask_seed is None else mask_seed) for seed in range(self.seeds)]

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain data for JSON; paths become text."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**_plain(values), "options": self.options.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Request:
        """Return the request that `to_json` wrote.

        Raises:
            UserError: a field is unknown or missing, as another version wrote it; nothing is guessed.
        """
        values = dict(content)
        names = {each.name for each in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise UserError(f"a request has no {', '.join(unknown)}; it was written by another version")
        if missing := sorted(names - set(values)):
            raise UserError(f"the request lacks {', '.join(missing)}; it was written by another version")
        values |= {name: tuple(map(Path, values[name])) for name in PATHS}
        lists = ("methods", "ratios", "shard")
        values |= {name: tuple(values[name]) for name in lists if values.get(name) is not None}
        values |= {name: Path(values[name]) for name in ("out", "tuned_file") if values.get(name) is not None}
        values["options"] = Options.from_json(values["options"])
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
