"""Where rows come from: which reader a path means, whether the columns are there, and the digest that enters stage keys."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from biasdiff_core.corpus.demo import demo_path
from biasdiff_core.corpus.formats import DelimitedFile, JsonLines, ParquetFile, Table
from biasdiff_core.corpus.hub import load_folder, load_hub
from biasdiff_core.corpus.refusals import shown
from biasdiff_core.errors import DataError, one_line
from biasdiff_core.workspace.artefacts import digest_json, digest_source

DEMO = "demo"
READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": lambda path: DelimitedFile(path, ","),
    ".tsv": lambda path: DelimitedFile(path, "\t"),
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonLines,
    ".parquet": ParquetFile,
}
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w./-]+)?(#[\w.-]+)?")
SUFFIX = re.compile(r"\.[A-Za-z]\w{0,7}")
NAMED = 20  # columns that a message lists
BINARY = 10  # one in so many bytes that are no text makes a file binary; fewer are reported with their lines
# How files begin that are something else than their suffix says, in small letters: what each is, and the mend.
SIGNATURES: Mapping[bytes, tuple[str, str]] = {
    b"pk\x03\x04": ("a ZIP archive, as Excel files are", "Save the sheet as CSV in UTF-8, or unpack the archive."),
    b"\x1f\x8b": ("compressed by gzip", "Unpack it first: gunzip."),
    b"par1": ("a Parquet file", "Give it the suffix .parquet."),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8."),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull."),
    b"<!doctype html": ("a web page", "Download the file itself, not the page that shows it."),
    b"<html": ("a web page", "Download the file itself, not the page that shows it."),
}


class Place(NamedTuple):
    """What a path means. `local`: the file or folder, None for a hub id. `split`: the one that it names, empty where it names none."""

    local: Path | None
    split: str = ""


def located(path: str, demo: str) -> Place:
    """The file or folder that `path` means (`demo`: the demo file of that name), a folder also as `folder#split`, or a hub id.

    Raises DataError when it looks like a file and is none, or names a split of a file.
    """
    if path == DEMO:
        return Place(demo_path(demo))
    if not path.strip():
        raise DataError("No file is named: the path is empty.", "Give a file, a folder, or a Hugging Face dataset id.")
    name, _, split = path.rpartition("#")
    try:
        local, parent = Path(path).expanduser(), Path(name).expanduser()
        if local.exists():  # first, for a name may hold the sign
            return Place(local)
        if name and parent.is_dir():
            return Place(parent, split)
        if name and parent.exists():
            raise DataError(f"{name} is a file, which has no split {split!r}.", f"Name it without #{split}.")
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, no such home folder, a NUL in it
        raise DataError(f"{shown(path)} is no path: {one_line(error)}.", "Correct the path.") from error
    if SUFFIX.fullmatch(local.suffix) or not HUB_ID.fullmatch(path):
        raise DataError(f"There is no file {path}.", "Correct the path; a relative one starts at the folder you are in.")
    return Place(None, split if name else "")


def local_path(path: str, demo: str) -> Path | None:
    """The file or folder of `located`, None for a hub id. Raises DataError likewise."""
    return located(path, demo).local


def saved_by_datasets(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote the folder."""
    return any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))


def open_source(path: str, split: str, *, demo: str) -> Table:
    """The rows behind `path`: a file by its suffix, a folder saved by `datasets`, else a dataset id of the hub.

    `split`: the one that is read where the path names none. Raises DataError for a path that is none of these, MissingDependency when
    `datasets` is needed and not installed.
    """
    local, named = located(path, demo)
    if local is None:
        return load_hub(path.removesuffix(f"#{named}"), named or split)
    if not os.access(local, os.R_OK):
        raise DataError(f"{path} must not be read by this user.", f"Allow it: chmod +r {path}")
    if local.is_dir():
        if not saved_by_datasets(local):
            raise DataError(f"The folder {path} was not saved by `datasets`.", "Name a file in it, or use `Dataset.save_to_disk`.")
        return load_folder(local, split, named)
    reader = READERS.get(local.suffix.lower())
    if reader is None:
        raise DataError(f"{path} has the suffix {local.suffix!r}, which is none of {', '.join(READERS)}.", "Save it as one of these.")
    found = reader(local)
    _require_format(found, local, path)
    return found


def _require_format(table: Table, local: Path, path: str) -> None:
    """Raise DataError when the first bytes of a file show that it is something else than its suffix says."""
    with local.open("rb") as handle:
        head = handle.read(1024)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, (what, mend) in SIGNATURES.items():
        if text.startswith(start) and not (start == b"par1" and isinstance(table, ParquetFile)):
            raise DataError(f"{path} is {what}.", mend)
    if isinstance(table, JsonLines) and text.startswith(b"["):
        lines = f"{local.stem}.jsonl" if local.suffix != ".jsonl" else f"{local.stem}-lines.jsonl"
        raise DataError(f"{path} is one JSON array, not one object a line.", f"Turn it into lines: jq -c '.[]' {local.name} > {lines}")
    found = Counter(head.decode(errors="replace"))
    nul, undecodable = found["\0"], found["\ufffd"]
    if not isinstance(table, ParquetFile) and nul and undecodable and nul + undecodable > len(head) / BINARY:
        raise DataError(f"{path} is no text but a binary file.", "Save the table as CSV, JSON lines or Parquet.")


def require_columns(table: Table, path: str, wanted: Collection[str]) -> None:
    """Raise DataError unless each wanted column is there once; it lists those that there are, and the closest name."""
    columns = table.columns(sought=wanted)
    for name in wanted:
        if columns.count(name) > 1:
            raise DataError(f"{path} has {columns.count(name)} columns named {name!r}.", "Give each column a name of its own.")
        if name not in columns:
            more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
            names = ", ".join(map(shown, columns[:NAMED])) or "none"
            raise DataError(f"{path} has no column {name!r}. Its columns: {names}{more}.", _advice(name, columns))


def _advice(name: str, columns: Sequence[str]) -> str:
    if not columns:
        return "Give each row that column."
    if columns[0].startswith("{"):
        return "The rows are JSON objects: give the file the suffix .jsonl."
    if len(columns) == 1 and re.search(r"[;,\t|]", "".join(columns)):
        return "The header is read as a single column: separate columns by commas in .csv, by tabs in .tsv."
    by_folded = {column.casefold(): column for column in columns}
    close = get_close_matches(name.casefold(), by_folded, n=1)
    return f"Did you mean {by_folded[close[0]]!r}?" if close else "Name one of these columns."


def source_digest(path: str, *, demo: str = "corpus.csv") -> str:
    """SHA-256, 64 hex digits, of what `path` stands for, without reading its rows; enters stage keys.

    A file: its bytes. A folder: names and digests of its files, less the caches that `datasets` leaves there, and the split that the
    path names. A hub id: the id, with revision and split when it names them (`owner/name@revision#split`); what an unpinned id gives
    may change unseen.
    """
    local, split = located(path, demo)
    if local is None:
        return digest_json({"hub": path})
    if local.is_file():
        return digest_source(local)
    files = (file for file in sorted(local.rglob("*")) if file.is_file() and not file.name.startswith(("cache-", ".")))
    content = digest_json({file.relative_to(local).as_posix(): digest_source(file) for file in files})
    return digest_json({"folder": content, "split": split}) if split else content
