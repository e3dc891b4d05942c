"""From the text of an answer to candidate rows. Nothing is believed or lost: what is no row is kept as such."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

COLUMNS = ("index", "text", "twin", "direction", "bias_type")  # the paper's index, sent_more, sent_less, stereo_antistereo, bias_type
KEPT_CHARACTERS = 500
_THOUGHT_TAG = re.compile(r"(</?(?:think|thinking|reasoning)>)", re.IGNORECASE)
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row of an answer: its cells as they came (of any type), or None where it is no row. `raw`: its text, shortened."""

    cells: Mapping[str, object] | None
    raw: str


def csv_rows(answer: str) -> list[Candidate]:
    """The paper's format: five cells a line, cells quoted where needed, spaces behind commas allowed. Empty lines are passed over."""
    text, candidates = _without_thoughts(answer)
    for line in text.splitlines():
        if line.strip():
            cells = _cells(line)
            candidates.append(_candidate(dict(zip(COLUMNS, cells, strict=True)) if len(cells) == len(COLUMNS) else None, line))
    return candidates


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line.strip()], skipinitialspace=True, strict=True), [])
    except csv.Error:
        return []


def json_rows(answer: str) -> list[Candidate]:
    """Every JSON object with `text` or `twin`, wherever it stands: in the list of an object, on a line of its own, in a code block.

    The rest of the answer is one candidate without cells, unless it is only what holds a list of objects together.
    """
    text, candidates = _without_thoughts(answer)
    rest, end = [], 0
    for start, stop, record in _objects(text):
        rest.append(text[end:start])
        end = stop
        candidates += [_candidate(row if isinstance(row, dict) else None, json.dumps(row, ensure_ascii=False)) for row in _rows(record)]
    remainder = " ".join(" ".join([*rest, text[end:]]).split())
    if remainder.strip("[]{}, "):
        candidates.append(_candidate(None, remainder))
    return candidates


def _objects(text: str) -> Iterator[tuple[int, int, dict[str, object]]]:
    """(start, end, object) of the outermost JSON objects that hold rows; one cut short is looked into for whole ones."""
    place = text.find("{")
    while place >= 0:
        end = place + 1
        try:
            record, stop = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            pass
        else:
            if list(_rows(record)):
                yield place, stop, record
                end = stop
        place = text.find("{", end)


def _rows(record: dict[str, object]) -> Iterator[object]:
    if "text" in record or "twin" in record:
        yield record
    elif isinstance(pairs := record.get("pairs"), list):
        yield from pairs


def _without_thoughts(answer: str) -> tuple[str, list[Candidate]]:
    """(the answer less what a reasoning model thought aloud, those thoughts as one candidate): drafts in them look like rows.

    Thoughts may be cut off before their end, and a closing tag may stand alone, its opening one being part of the model's chat template.
    """
    said: list[str] = []
    thought: list[str] = []
    thinking = False
    for part in _THOUGHT_TAG.split(answer):
        if _THOUGHT_TAG.fullmatch(part):
            if part.startswith("</") and not thinking:
                thought, said = [*thought, *said], []
            thinking = not part.startswith("</")
        else:
            (thought if thinking else said).append(part)
    thoughts = " ".join("".join(thought).split())
    return "".join(said), [_candidate(None, thoughts)] if thoughts else []


def _candidate(cells: Mapping[str, object] | None, raw: str) -> Candidate:
    return Candidate(cells=cells, raw=raw[:KEPT_CHARACTERS])
