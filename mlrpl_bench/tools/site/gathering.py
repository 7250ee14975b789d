"""This module reads all records and kept tables that a site is made from, and says in lines what disagrees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlrpl_bench.records.packs import importing
from mlrpl_bench.records.packs.manifest import MANIFEST, NOTHING_IMPORTED, BadPack
from mlrpl_bench.records.record import RECORD, Record
from mlrpl_bench.records.store import ResultStore, left_out_line
from mlrpl_bench.tools.site.kept_tables import KeptTable, read_kept_tables
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.tables import counted

ABOVE = "name the folder above it"


@dataclass
class Gathered:
    """This class holds what folders and packs have.

    Attributes:
        records: the records that are whole, one for a key; of several equal ones that of the folder named first.
        places: by key, where a record lies below its folder, such as ``scenes/sarb/0.1-s0-0123abcd``.
        tables: tables without records.
        problems: a line for everything that is there and cannot be used.
        notes: a line for everything else that a reader should know.
        called: by folder that was read, how pages call it: no page says where on a disk something lies.
    """

    records: list[Record] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    tables: list[KeptTable] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)

    def public(self, lines: Iterable[str]) -> list[str]:
        """Return lines with the folders called as on the pages."""
        found = list(lines)
        for folder in sorted(self.called, key=len, reverse=True):
            found = [line.replace(folder, self.called[folder]) for line in found]
        return found


def gather(results: Sequence[Path], unpacked: Path, report: Report = silent) -> Gathered:
    """Read folders of records, packs and folders of kept tables.

    Args:
        results: folders and packs; of records of one cell that agree, that of the first one counts.
        unpacked: an empty folder for the content of packs, which must stay until the site is written.
        report: told about the progress as (what, done, total).

    Raises:
        UserError: one cannot be read, a pack is not what was packed, or there is nothing at all.
    """
    found, results = Gathered(), list(dict.fromkeys(results))
    folders = [_folder_of(path, unpacked / str(number), found, report) for number, path in enumerate(results)]
    for path, folder in zip(results, folders, strict=True):
        found.called |= {str(folder): path.resolve().name, str(path): path.resolve().name}
    store = ResultStore(folders[0], folders[1:])
    for number, dataset in enumerate(datasets := store.datasets()):
        report("reading records", number, len(datasets))
        _survey(store, folders, dataset, found)
    report("reading records", len(datasets), len(datasets))
    found.problems = [_as_named(line, results, folders) for line in found.problems]
    found.notes = [_as_named(line, results, folders) for line in found.notes]
    for path, folder in zip(results, folders, strict=True):
        tables = read_kept_tables(folder)
        found.tables += tables
        if tables and any(folder.glob(f"*/*/{RECORD}")):
            found.notes.append(f"{path} is the folder of one data set: its tables are shown, not its records; {ABOVE}")
        if not tables and not any(record.folder.is_relative_to(folder) for record in found.records):
            found.notes.append(_why_empty(path, folder, store))
    if not found.records and not found.tables:
        reasons = "; ".join([*found.problems, *found.notes][:3])
        raise UserError(f"there is nothing to show: {reasons}; name folders in which there are records")
    return found


def _as_named(line: str, results: Sequence[Path], folders: Sequence[Path]) -> str:
    """Return a line with packs as the user named them: the folders of what is in them are gone when it is read."""
    for path, folder in zip(results, folders, strict=True):
        if folder != path:
            line = line.replace(f"{folder}/", f"{path}/")
    return line


def _folder_of(path: Path, unpacked: Path, found: Gathered, report: Report) -> Path:
    """Return a folder of records; of a pack that with its records."""
    if path.is_dir() and not (path / MANIFEST).is_file():
        return path
    if not path.exists():
        raise UserError(f"{path} is not there; name folders of records, or packs that records export wrote")
    unpacked.mkdir()
    try:
        brought = importing.bring_in(path, ResultStore(unpacked), report=report)
    except BadPack as error:
        raise UserError(str(error).removesuffix(NOTHING_IMPORTED)) from error
    found.notes.append(f"{path} is a pack: {counted(len(brought.imported), 'record')} measured elsewhere")
    return unpacked


def _survey(store: ResultStore, folders: Sequence[Path], dataset: str, found: Gathered) -> None:
    survey = store.survey(dataset)
    found.problems += survey.problems
    found.notes += [left_out_line(*each) for each in survey.excluded_folders.items()]
    twice: list[Record] = []
    for record in survey.records:
        root = next(folder for folder in folders if record.folder.is_relative_to(folder))
        place = record.folder.relative_to(root)
        found.places[record.cell.key] = place.as_posix()
        content = (record.folder / RECORD).read_bytes()
        others = [folder / place / RECORD for folder in folders if folder != root]
        with contextlib.suppress(OSError):  # one that cannot be read is named by the survey
            if any(other.is_file() and other.read_bytes() != content for other in others):
                twice.append(record)
    found.records += survey.records
    if twice:
        found.notes.append(
            f"{dataset}: {counted(len(twice), 'cell')} trained more than once with the same metrics and other bytes "
            f"(time, machine), the first is {twice[0].cell.title}; shown is that of the folder named first"
        )


def _why_empty(path: Path, folder: Path, store: ResultStore) -> str:
    if any(store_file.is_relative_to(folder) for name in store.datasets() for store_file in store.record_files(name)):
        return f"{path} has no record that only it has and that can be used"
    if any(folder.glob(f"*/*/{RECORD}")):
        return f"{path} is the folder of one data set; {ABOVE}"
    return f"{path} holds no records and no tables"
