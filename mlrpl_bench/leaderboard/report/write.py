"""Writes the files of a leaderboard: tables, figures and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically
from mlrpl_bench.utils.shortages import is_full


def table_files(table: Leaderboard, ending: str) -> dict[str, str]:
    """Return the tables of a leaderboard as files, by name."""
    return {
        f"leaderboard{ending}.csv": table.to_csv(),
        f"leaderboard{ending}.md": table.to_markdown(),
        f"leaderboard{ending}.tex": table.to_latex(),
        f"measurements{ending}.csv": table.tidy_csv(),
    }


def write(
    table: Leaderboard,
    folder: Path,
    variant: str,
    methods: Mapping[str, MethodEntry],
    test: Split,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Path]:
    """Write tables, figures and the page of a leaderboard, and return the paths.

    Args:
        variant: what makes the setting another than the data set's usual one; it ends the files' names.
        test: the images that examples are drawn from.
        report: told of progress as (what, done, total).

    Raises:
        UserError: the folder cannot be written to.
    """
    from mlrpl_bench.leaderboard.report import examples, figures, page  # a second, and most commands write nothing

    ending = f"-{variant}" if variant else ""
    report("drawing", 0, 2)
    files: dict[str, str | bytes] = {**table_files(table, ending)}
    defaults = sorted(name for name, entry in methods.items() if entry.default)
    drawn = {f"figures{ending}/{name}": content for name, content in figures.draw_all(table, defaults).items()}
    report("drawing", 1, 2)
    files[f"index{ending}.html"] = page.render(
        table,
        pictures=examples.draw(table, test),
        defaults=defaults,
        papers={name: entry.paper for name, entry in sorted(methods.items())},
        files=[*files, *drawn],
    )
    report("drawing", 2, 2)
    return [write_file(folder / name, content) for name, content in {**files, **drawn}.items()]


def write_file(path: Path, content: str | bytes) -> Path:
    """Write one file of a table atomically, and return its path.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        advice = "make room and give the same command again" if is_full(error) else "name another folder with --out"
        raise UserError(f"{path} cannot be written ({error.strerror}); {advice}") from error
    return path
