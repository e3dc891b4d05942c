"""What can be wrong with a row, and one error that lists it all with line numbers, so that a file is mended in one go."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from biasdiff_core.errors import DataError

LISTED = 5
SHOWN = 60  # characters of a value
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Fault:
    """Completes the sentence `2 rows …`; `mend` says what to do."""

    what: str
    mend: str


Flaw = tuple[Fault, str]  # what is wrong with a row, and the detail to show

NOT_UTF8 = Fault("not in UTF-8", "Save the file as UTF-8 (now it may be UTF-16 or Latin-1).")
NUL = Fault("with NUL bytes", "Remove the NUL bytes; a UTF-16 file must be saved as UTF-8.")
NOT_UNICODE = Fault("with half a surrogate pair", "No UTF-8 can hold it: correct the escapes \\ud800 to \\udfff.")
NOT_JSON = Fault("without a JSON object", 'Write one object a line, {"text": "…"}; `jq -c .` puts one that spans lines on a single line.')
BAD_QUOTES = Fault("with unmatched quotes", 'Put cells with quotes into quotes and double the inner ones: "say ""so""".')
BARE_RETURNS = Fault("with a carriage return inside", "End rows with line feeds, or put cells that hold line breaks into quotes.")
RAGGED = Fault("with another number of cells than the header", "Put cells that hold the separator or a line break into quotes.")
NOT_TEXT = Fault("with a text that is not a string", 'Write texts as strings ("" where there is none), each in a column of its own.')
NOT_FLAT = Fault("with a source or group that is neither text nor number", "Name a column of plain values.")
NOT_HELD = Fault("with a value out of range", "Write that column as text.")
BAD_LABEL = Fault(
    "with a label that is none of 0, 1, true, false, yes, no", "Correct the labels (an empty one is unknown), or name another label column."
)
SAME_TWIN = Fault(
    "with a twin equal to the probe", "Give the anti-stereotype twin (case and punctuation make none), or leave the cell empty."
)


def listed(lines: Sequence[int], unit: str = "line", count: int | None = None) -> str:
    """`line 3`, or `lines 3, 4, 5, 6, 7 and 12 more`. `count`: how many there are, where `lines` holds the first ones alone."""
    more = (len(lines) if count is None else count) - LISTED
    return f"{unit}{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:LISTED]))}{f' and {more} more' if more > 0 else ''}"


def shown(value: object) -> str:
    """A value of somebody's file for a message: escaped, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def rows_of(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} row{'' if count == 1 else 's'}"


def flaw_of(*cells: object) -> Flaw | None:
    """Why one of these cells is no text; an absent one (None) is empty, not wrong."""
    for value in cells:
        if value is None:
            continue
        if not isinstance(value, str):
            return NOT_TEXT, f"{shown(value)} of type {type(value).__name__}"
        if "\0" in value:
            return NUL, ""
        if not value.isascii() and SURROGATE.search(value):
            return NOT_UNICODE, ""
    return None


class Refusals:
    """Collects faulty rows of one source; `raise_any` refuses the source when there were any. It keeps the first lines of each fault."""

    def __init__(self, source: str, unit: str) -> None:
        self._source, self._unit = source, unit
        self._counts: Counter[Fault] = Counter()
        self._lines: defaultdict[Fault, list[int]] = defaultdict(list)
        self._details: dict[Fault, str] = {}

    def add(self, flaw: Flaw, line: int) -> None:
        """Note that the row at `line` has this flaw; of each fault, the first detail is shown."""
        fault, detail = flaw
        self._counts[fault] += 1
        if self._counts[fault] <= LISTED:
            self._lines[fault].append(line)
        if detail:
            self._details.setdefault(fault, f" ({self._unit} {line}: {detail})")

    def raise_any(self) -> None:
        """Raise DataError that names every fault with its first lines and their count; nothing when there is none."""
        if not self._counts:
            return
        parts = [
            f"{rows_of(count)} {fault.what}: {listed(self._lines[fault], self._unit, count)}{self._details.get(fault, '')}"
            for fault, count in self._counts.items()
        ]
        raise DataError(f"{self._source}: {'; '.join(parts)}.", " ".join(dict.fromkeys(fault.mend for fault in self._lines)))
